"""The bar over a test loader, under the host's own evaluation loop."""

import copy
import io
import logging
import sys

import pytest
from detectron2.evaluation import inference_on_dataset
from detectron2.utils import comm, logger
from terminal import Terminal
from torch.utils.data import DataLoader

from rethink_pretrain.evaluation.progress import with_progress


@pytest.fixture
def log(monkeypatch):
    """What a log file would hold; `log.show()` adds a handler for the terminal, too."""
    monkeypatch.setattr(logger, "_LOG_TIMER", {})  # the host says the same at most every 5 s
    host = logging.getLogger("detectron2")
    monkeypatch.setattr(host, "level", logging.INFO)
    monkeypatch.setattr(host, "propagate", False)
    monkeypatch.setattr(host, "handlers", [logging.StreamHandler(file := io.StringIO())])
    file.show = lambda: host.addHandler(logging.StreamHandler(sys.stdout))
    return file


def evaluate(loader):
    seen = []
    inference_on_dataset(lambda batch: seen.append(batch.tolist()), loader, None)
    return seen


def test_a_bar_in_place_of_the_hosts_lines(log):
    loader = DataLoader(range(30), batch_size=2)
    with Terminal() as terminal:
        log.show()
        handler = logging.getLogger("detectron2").handlers[-1]
        assert evaluate(with_progress(loader, "Evaluating")) == [[i, i + 1] for i in range(0, 30, 2)]
        assert handler.stream is sys.stdout and handler.filters == []
    shown = terminal.lines
    assert any(line.startswith("Evaluating ") and " 15/15 " in line for line in shown)
    assert "Start inference on 15 batches" in shown
    assert not any("Inference done" in line for line in shown)
    assert "Inference done 11/15" in log.getvalue()


def test_the_hosts_lines_without_a_terminal(log, capsys):
    log.show()
    evaluate(with_progress(DataLoader(range(30), batch_size=2), "Evaluating"))
    out, err = capsys.readouterr()
    assert "Inference done 11/15" in out and "Evaluating" not in out + err


def test_only_the_main_process_has_a_bar(monkeypatch):
    monkeypatch.setattr(comm, "get_rank", lambda: 1)
    with Terminal() as terminal:
        assert list(with_progress(range(3), "Evaluating")) == [0, 1, 2]
    assert terminal.shown == ""


def test_a_loop_that_fails_gives_the_terminal_back():
    with Terminal():
        stream = sys.stdout
        with pytest.raises(KeyError):
            for _ in with_progress(range(3), "Evaluating"):
                raise KeyError
        assert sys.stdout is stream


def test_otherwise_it_is_the_loader():
    loader = DataLoader(range(5), batch_size=2)
    shown = with_progress(loader, "Evaluating")
    assert len(shown) == 3 and shown.dataset is loader.dataset and shown.batch_size == 2
    assert copy.copy(shown).dataset is loader.dataset
    with pytest.raises(AttributeError, match="nothing"):
        shown.nothing  # noqa: B018 - the access is the test
