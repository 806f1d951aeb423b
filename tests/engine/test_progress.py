import io
import logging
import sys

from detectron2.utils.events import CommonMetricPrinter, EventStorage

from rethink_pretrain.engine.progress import ProgressBar, build_progress_writer, describe


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def fill(storage: EventStorage) -> None:
    for loss in (3.0, 1.0, 2.0):
        storage.put_scalars(total_loss=loss, loss_cls=loss / 2, loss_mask=loss / 4)
    storage.put_scalar("bbox/AP", 12.34, smoothing_hint=False)


def test_describe_shows_median_losses_and_the_latest_ap():
    with EventStorage(0) as storage:
        fill(storage)
        assert describe(storage) == "loss 2.000 (cls 1.00 mask 0.50) box AP 12.3"


def test_log_lines_without_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert isinstance(build_progress_writer(10), CommonMetricPrinter)


def test_the_bar_counts_iterations_and_lets_the_log_through(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    logger = logging.getLogger("rethink_pretrain")
    handler = logging.StreamHandler(terminal)
    logger.addHandler(handler)
    try:
        writer = build_progress_writer(10)
        assert isinstance(writer, ProgressBar)
        with EventStorage(4) as storage:
            fill(storage)
            writer.write()
            logger.error("a line of the log")
            assert handler.stream is not terminal
            writer.close()
        assert handler.stream is terminal
        writer.close()  # twice does no harm
    finally:
        logger.removeHandler(handler)
    shown = terminal.getvalue()
    assert "5/10" in shown and "box AP 12.3" in shown and "a line of the log" in shown
