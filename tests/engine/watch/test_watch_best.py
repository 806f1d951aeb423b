import logging
import math

import pytest
import torch
from torch import nn
from watch_loop import Loop, aps, write_metrics

from rethink_pretrain.checkpoint import RethinkCheckpointer
from rethink_pretrain.engine.watch.best import BestCheckpoint


@pytest.fixture
def saved(tmp_path):
    """A checkpointer whose files tell the iteration; `saved()` is that of model_best.pth."""
    checkpointer = RethinkCheckpointer(nn.Linear(2, 2), str(tmp_path))
    checkpointer.save("model_0000000")

    def read():
        checkpointer.wait()
        return torch.load(tmp_path / "model_best.pth", weights_only=False)["iteration"]

    read.checkpointer = checkpointer
    return read


def run(saved, output, values, **where):
    hook = BestCheckpoint("bbox/AP", saved.checkpointer)
    Loop(aps(*values), [hook], output, **where).run()
    saved.checkpointer.wait()  # as a run does before it ends
    return hook


def test_the_highest_is_kept(saved, tmp_path):
    hook = run(saved, tmp_path, [1.0, 3.0, 2.0, 3.0])
    assert hook.best == 3.0
    assert saved() == 3  # after steps 2, 4, 6 and 8, counted from 0; equal is not better
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000000.pth"


def test_the_evaluation_after_the_last_step_counts(saved, tmp_path):
    assert run(saved, tmp_path, [1.0, 2.0]).best == 2.0
    assert saved() == 3


def test_nan_never_wins(saved, tmp_path):
    assert run(saved, tmp_path, [math.nan, 1.0, math.nan]).best == 1.0
    assert saved() == 3


def test_a_resumed_run_remembers(saved, tmp_path):
    """The evaluation right behind the checkpoint of step 4, too; what comes later is another future."""
    run(saved, tmp_path, [5.0, 4.0], length=4)
    write_metrics(tmp_path, (1, 2.0), (3, 5.0), (5, 9.0))
    assert run(saved, tmp_path, [4.0, 4.5], start=4).best == 5.0
    assert saved() == 1
    assert run(saved, tmp_path, [6.0, 4.0], start=4).best == 6.0
    assert saved() == 5


def test_without_a_file_the_best_is_to_come(saved, tmp_path):
    write_metrics(tmp_path, (1, 5.0))
    assert run(saved, tmp_path, [4.0], start=4).best == 4.0


def test_a_best_whose_file_a_kill_has_taken_is_saved_by_the_resume(saved, tmp_path):
    write_metrics(tmp_path, (1, 4.0), (3, 5.0))
    assert run(saved, tmp_path, [4.0], start=4).best == 5.0
    assert saved() == 3


def test_a_best_of_a_future_that_was_given_up_is_void(saved, tmp_path):
    run(saved, tmp_path, [1.0, 9.0], length=4)
    assert run(saved, tmp_path, [3.0], start=2).best == 3.0
    assert saved() == 3


def test_a_broken_file_is_no_best(saved, tmp_path):
    run(saved, tmp_path, [9.0, 1.0], length=4)
    saved.checkpointer.wait()
    (tmp_path / "model_best.pth").write_bytes(b"")
    assert run(saved, tmp_path, [3.0], start=4).best == 3.0


def test_a_metric_that_is_not_there_is_named_once(tmp_path, saved, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("rethink_pretrain"), "propagate", True)
    hook = BestCheckpoint("box/AP", saved.checkpointer)
    Loop(aps(1.0, 2.0), [hook], tmp_path).run()
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning == "RETHINK.WATCH.BEST_METRIC box/AP is not measured here. There are: bbox/AP."
    assert not (tmp_path / "model_best.pth").exists()
