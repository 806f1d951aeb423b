"""A training loop that takes milliseconds and whose images of some ids go wrong in a known way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from detectron2.config import get_cfg
from detectron2.engine import hooks
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from torch import nn

from rethink_pretrain.engine.numerics import LossGuard, halve_learning_rate
from rethink_pretrain.engine.train_loop import TrainLoop
from rethink_pretrain.engine.unwrap import distribute, unwrap

LENGTH = 30  # iterations of the schedule
LEARNING_RATE = 0.1


class Images:
    """Records 0, 1, 2, ... split over the processes; `per_batch` is that of one process."""

    def __init__(self, per_batch: int = 2):
        self.position, self._per_batch = 0, per_batch

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        first = self.position + comm.get_rank() * self._per_batch
        while True:
            yield [self._record(first + number) for number in range(self._per_batch)]
            first += self._per_batch * comm.get_world_size()

    @staticmethod
    def _record(image_id: int) -> dict[str, Any]:
        x = torch.randn(4, generator=torch.Generator().manual_seed(image_id))
        return {"image_id": image_id, "x": x}


class Model(nn.Module):
    """Two losses of a linear layer; `bad` says what happens at an image id.

    "nan": a loss is NaN. "huge": it is 1e6 times as large. "gradient": it is finite, its gradient not.
    "input": the image has a NaN. "refused": the model raises as the host's RPN does.
    """

    def __init__(self, bad: dict[int, str], norm: bool = False):
        super().__init__()
        self.norm = nn.BatchNorm1d(4) if norm else nn.Identity()
        self.linear = nn.Linear(4, 2)
        self._bad = bad

    def forward(self, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        kinds = {self._bad.get(record["image_id"]) for record in batch}
        x = torch.stack([record["x"] for record in batch])
        if "refused" in kinds:
            raise FloatingPointError("Predicted boxes or scores contain Inf/NaN.")
        y = self.linear(self.norm(x * float("nan") if "input" in kinds else x))
        factor = float("nan") if "nan" in kinds else 1e6 if "huge" in kinds else 1.0
        root = torch.sqrt((self.linear.weight * 0).sum()) if "gradient" in kinds else 0.0  # slope inf x 0
        return {"loss_a": factor * y[:, 0].square().mean(), "loss_b": (y[:, 1] - 1).square().mean() + root}


def build_loop(
    folder: Path,
    bad: dict[int, str],
    *,
    policy: str = "skip",
    max_in_a_row: int = 10,
    norm: bool = False,
    guarded: bool = True,
    micro_batches: int = 1,
) -> TrainLoop:
    """A loop of 4 images a step in all, with momentum and the host's schedule, writing into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = distribute(Model(bad, norm))
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9)
    scheduler = build_lr_scheduler(schedule_config(), optimizer)
    guard = LossGuard(
        policy=policy,
        explosion=100.0,
        max_in_a_row=max_in_a_row,
        output_dir=folder,
        seed=5,
        lower_lr=lambda: halve_learning_rate(optimizer, scheduler),
        advice="Warm up longer.",
    )
    per_batch = 4 // comm.get_world_size() // micro_batches
    loop = TrainLoop(
        model,
        Images(per_batch),
        optimizer,
        seed=5,
        images_per_step=4,
        micro_batches=micro_batches,
        guard=guard if guarded else None,
    )
    loop.register_hooks([hooks.LRScheduler(optimizer, scheduler)])
    return loop


def schedule_config() -> Any:
    """The host's config of a schedule of `LENGTH` iterations with a drop at 20."""
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = LEARNING_RATE, LENGTH, (20,)
    cfg.SOLVER.WARMUP_ITERS = 4
    return cfg


def snapshot(loop: TrainLoop) -> dict[str, torch.Tensor]:
    """Copies of the weights, buffers and momentum."""
    ret = {name: value.clone() for name, value in unwrap(loop.model).state_dict().items()}
    for name, parameter in unwrap(loop.model).named_parameters():
        momentum = loop.optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None:
            ret[f"momentum of {name}"] = momentum.clone()
    return ret


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
