"""Validation losses and early stopping where the metrics are on one of two processes."""

import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn
from two_processes import run_on_two_ranks
from watch_loop import Loop, aps

from rethink_pretrain.engine.watch.early_stop import EarlyStopping
from rethink_pretrain.engine.watch.validation_loss import ValidationLoss


class Mean(nn.Linear):
    def forward(self, batch):
        return {"loss": torch.tensor(batch).mean()}


def work(rank):
    """The step at which this process stopped, why, and the mean loss that it knows."""
    output = Path(tempfile.mkdtemp())
    values = aps(1.0, 3.0, 2.0, 2.5, 9.0) if rank == 0 else [None] * 5
    images = [[[2.0], [4.0]], [[9.0]]][rank]
    watched = [
        ValidationLoss(lambda: images, eval_period=2),
        EarlyStopping("bbox/AP", 2, last_drop=0, eval_period=2, output_dir=str(output)),
    ]
    loop = Loop(values, watched, output, model=Mean(1, 1)).run()
    return loop.iter, loop.stopped, loop.storage.latest().get("val_loss/total_loss")


def test_they_agree(tmp_path):
    first, second = run_on_two_ranks(work, tmp_path)
    assert first[:2] == second[:2] == (7, "bbox/AP 2.50, 2 evaluations without more than 3.00")
    assert first[2] == (pytest.approx(5.0), 7) and second[2] is None
