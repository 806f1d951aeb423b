"""One training step: micro-batches whose gradients add up, with draws that depend on the step alone."""

import contextlib
import math
import random
import time
from typing import Any

import numpy as np
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..data import STEP, TrainLoader, derive_seed
from .exposure import Exposure, count_records
from .numerics import (
    NON_FINITE_GRADIENT,
    LossGuard,
    Outcome,
    RollBack,
    Step,
    forward_or_nan,
    share_outcome,
)
from .precision import autocast


class TrainLoop(SimpleTrainer):
    """The host's loop with gradient accumulation and exact resume.

    A step is the mean over all micro-batches of all processes, so it does not matter which process has
    which: 2 processes with 1 micro-batch each take the step of 1 process with 2. Before each forward pass the
    generators are seeded by (seed, iteration, number of the micro-batch in the batch): RoI sampling is then
    the same too, and no generator's state has to be saved.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: TrainLoader,
        optimizer: torch.optim.Optimizer,
        *,
        seed: int,
        images_per_step: int,
        micro_batches: int = 1,
        mixed_precision: bool = False,
        precision: str = "fp32",
        guard: LossGuard | None = None,
    ):
        """`images_per_step` counts all processes, `micro_batches` those of this one.

        `precision` is "fp32" or "bf16"; `mixed_precision` is the host's fp16, on CUDA alone. Without a
        `guard`, a loss that is not finite ends training as in the host, and a gradient goes unseen.
        """
        super().__init__(model, data_loader, optimizer)
        self._seed, self._micro_batches = seed, micro_batches
        self._images_per_step = images_per_step
        self.samples = 0  # images that all processes have trained on since the start of the run
        self.exposure: Exposure | None = Exposure()  # None in a run whose checkpoint does not tell
        self._mixed_precision, self._precision = mixed_precision, precision
        self._device = next(model.parameters()).device
        self._scaler = torch.amp.GradScaler("cuda", enabled=mixed_precision)
        self._guard = guard
        self._batches = None

    def run_step(self) -> None:
        """Forward and backward of every micro-batch, one update where the guard finds nothing."""
        assert self.model.training, "the model was left in evaluation mode"
        if self._batches is None:
            self.data_loader.position = self.samples
            self._batches = iter(self.data_loader)
        self.optimizer.zero_grad()
        totals: dict[str, torch.Tensor] = {}
        records: list[dict[str, Any]] = []
        data_time = 0.0
        for number in range(self._micro_batches):
            start = time.perf_counter()
            batch = next(self._batches)
            data_time += time.perf_counter() - start
            records += batch
            for name, loss in self._backward(batch, number).items():
                totals[name] = totals.get(name, 0.0) + loss.detach() / self._micro_batches
        outcome = share_outcome(totals, self._gradients(), data_time, count_records(records))
        _write_outcome(outcome)
        if self._guard is None:
            if not math.isfinite(outcome.loss):
                raise FloatingPointError(f"Iteration {self.iter}: the loss is not finite: {outcome.losses}.")
            self._update()
        else:
            image_ids = [record.get("image_id") for record in records]
            self._guarded_update(self._guard, outcome, self._describe_step(totals, image_ids))
        self.samples += self._images_per_step
        self._count(outcome)

    def _count(self, outcome: Outcome) -> None:
        if self.exposure is None:
            return
        self.exposure = self.exposure.grown_by(outcome.counts)
        for name, count in self.exposure._asdict().items():
            get_event_storage().put_scalar(f"samples/{name}", count, smoothing_hint=False)

    def _update(self) -> bool:
        """Whether there was one, or it failed for the scale of fp16's gradients alone, which then shrinks."""
        scale = self._scaler.get_scale()  # 1 without fp16
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return self._scaler.get_scale() >= min(scale, 1.0)

    def _guarded_update(self, guard: LossGuard, outcome: Outcome, step: Step) -> None:
        finding = guard.examine(outcome)
        if not finding.kind and not self._update():
            finding = finding._replace(kind=NON_FINITE_GRADIENT)
        if finding.kind:
            self.optimizer.zero_grad()
            guard.handle(finding, step, self.model)
        else:
            guard.accept(finding, self.iter)
        if guard.incidents:
            get_event_storage().put_scalar("incidents", guard.incidents, smoothing_hint=False)

    def _gradients(self) -> list[torch.Tensor]:
        """For the guard; none with fp16, where the scaler looks at them."""
        unseen = self._guard is None or self._mixed_precision
        groups = [] if unseen else self.optimizer.param_groups
        return [p.grad for group in groups for p in group["params"] if p.grad is not None]

    def _describe_step(self, losses: dict[str, torch.Tensor], image_ids: list[Any]) -> Step:
        learning_rate = self.optimizer.param_groups[0]["lr"]
        return Step(self.iter, self.samples, self._images_per_step, learning_rate, losses, image_ids)

    def _backward(self, batch: list[dict[str, Any]], number: int) -> dict[str, torch.Tensor]:
        _seed_generators(derive_seed(self._seed, STEP, self.iter, self._number_in_batch(number)))
        last = number == self._micro_batches - 1
        distributed = isinstance(self.model, DistributedDataParallel)
        with self.model.no_sync() if distributed and not last else contextlib.nullcontext():
            with autocast(self._device, self._precision, fp16=self._mixed_precision):
                losses = self.model(batch) if self._guard is None else forward_or_nan(self.model, batch)
            self._scaler.scale(sum(losses.values()) / self._micro_batches).backward()
        return losses

    def _number_in_batch(self, number: int) -> int:
        return comm.get_rank() * self._micro_batches + number

    def state_dict(self) -> dict[str, Any]:
        """The host's state with what the run has trained on, and of the scaler and guard in use."""
        exposure = self.exposure and self.exposure._asdict()
        state = {**super().state_dict(), "samples": self.samples, "exposure": exposure}
        if self._mixed_precision:
            state["grad_scaler"] = self._scaler.state_dict()
        if self._guard is not None:
            state["loss_guard"] = self._guard.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Also of the host's loops, which count no samples: every iteration then had today's batch."""
        super().load_state_dict(state_dict)
        self.samples = state_dict.get("samples", (state_dict["iteration"] + 1) * self._images_per_step)
        exposure = state_dict.get("exposure")
        self.exposure = Exposure(**exposure) if exposure else None
        if self._mixed_precision and "grad_scaler" in state_dict:
            self._scaler.load_state_dict(state_dict["grad_scaler"])
        if self._guard is not None and "loss_guard" in state_dict:
            self._guard.load_state_dict(state_dict["loss_guard"])

    def go_on_behind(self, roll_back: RollBack) -> None:
        """After a resume from the checkpoint before it: with the images that follow the bad step's."""
        self.samples = roll_back.samples
        if self._guard is not None:
            self._guard.load_state_dict(roll_back.counts)


def _write_outcome(outcome: Outcome) -> None:
    """The metrics that the host writes, but for those of a loss that it refuses."""
    if not comm.is_main_process() or not math.isfinite(outcome.loss):
        return
    storage = get_event_storage()
    storage.put_scalars(data_time=outcome.data_time, total_loss=outcome.loss)
    if len(outcome.losses) > 1:
        storage.put_scalars(**outcome.losses)


def _seed_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
