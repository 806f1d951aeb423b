"""Training progress on the screen: a live bar on a terminal, the host's log lines elsewhere."""

import logging
import sys

from detectron2.utils.events import CommonMetricPrinter, EventStorage, EventWriter, get_event_storage
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LOSS_WINDOW = 20  # iterations whose median is shown, as in the host's log lines


def build_progress_writer(max_iter: int) -> EventWriter:
    """The bar where standard output is a terminal, else the host's `CommonMetricPrinter`."""
    return ProgressBar(max_iter) if sys.stdout.isatty() else CommonMetricPrinter(max_iter)


class ProgressBar(EventWriter):
    """One line: iterations, ETA, total loss, the losses it is made of, and the latest AP."""

    def __init__(self, max_iter: int):
        self._max_iter = max_iter
        self._bar: Progress | None = None
        self._redirected: list[tuple[logging.StreamHandler, object]] = []

    def write(self) -> None:
        """Show the state of the current event storage; the first call puts the bar on the screen."""
        storage = get_event_storage()
        if self._bar is None:
            self._start(storage.iter)
        done = min(storage.iter + 1, self._max_iter)
        self._bar.update(self._task, completed=done, status=describe(storage))

    def close(self) -> None:
        """Leave the last state on the screen and give the log its stream back."""
        if self._bar is None:
            return
        self._bar.stop()
        for handler, stream in self._redirected:
            handler.setStream(stream)
        self._bar = None

    def _start(self, first_iter: int) -> None:
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
        )
        self._task = self._bar.add_task("training", total=self._max_iter, completed=first_iter, status="")
        terminal = sys.stdout
        self._bar.start()
        # While the bar lives, rich prints above it whatever goes through sys.stdout. The host's log
        # handlers hold the terminal itself and would write through the bar.
        for name in ("detectron2", "fvcore", "rethink_pretrain"):
            for handler in logging.getLogger(name).handlers:
                if getattr(handler, "stream", None) is terminal:
                    self._redirected.append((handler, handler.setStream(sys.stdout)))


def describe(storage: EventStorage) -> str:
    """Losses and AP so far in words, e.g. "loss 1.234 (cls 0.51 mask 0.30) box AP 12.3 mask AP 10.1"."""
    histories = storage.histories()
    words = []
    if "total_loss" in histories:
        words.append(f"loss {histories['total_loss'].median(_LOSS_WINDOW):.3f}")
    parts = [
        f"{key.removeprefix('loss_')} {history.median(_LOSS_WINDOW):.2f}"
        for key, history in histories.items()
        if key.startswith("loss_")
    ]
    if parts:
        words.append(f"({' '.join(parts)})")
    for key, label in (("bbox/AP", "box AP"), ("segm/AP", "mask AP")):
        if key in histories:
            words.append(f"{label} {histories[key].latest():.1f}")
    return " ".join(words)
