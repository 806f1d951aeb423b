"""One training step: micro-batches whose gradients add up, with draws that depend on the step alone."""

import contextlib
import random
import time
from typing import Any

import numpy as np
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..data import STEP, TrainLoader, derive_seed


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
    ):
        """`images_per_step` counts all processes, `micro_batches` those of this one; fp16 on CUDA alone."""
        super().__init__(model, data_loader, optimizer)
        self._seed, self._micro_batches = seed, micro_batches
        self._images_per_step = images_per_step
        self.samples = 0  # images that all processes have trained on since the start of the run
        self._mixed_precision = mixed_precision
        self._scaler = torch.amp.GradScaler("cuda", enabled=mixed_precision)
        self._batches = None

    def run_step(self) -> None:
        """Forward and backward of every micro-batch, one update."""
        assert self.model.training, "the model was left in evaluation mode"
        if self._batches is None:
            self.data_loader.position = self.samples
            self._batches = iter(self.data_loader)
        self.optimizer.zero_grad()
        totals: dict[str, torch.Tensor] = {}
        data_time = 0.0
        for number in range(self._micro_batches):
            start = time.perf_counter()
            batch = next(self._batches)
            data_time += time.perf_counter() - start
            for name, loss in self._backward(batch, number).items():
                totals[name] = totals.get(name, 0.0) + loss.detach() / self._micro_batches
        self._write_metrics(totals, data_time)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.samples += self._images_per_step

    def _backward(self, batch: list[dict[str, Any]], number: int) -> dict[str, torch.Tensor]:
        _seed_generators(derive_seed(self._seed, STEP, self.iter, self._number_in_batch(number)))
        last = number == self._micro_batches - 1
        distributed = isinstance(self.model, DistributedDataParallel)
        with self.model.no_sync() if distributed and not last else contextlib.nullcontext():
            with torch.autocast("cuda", dtype=torch.float16, enabled=self._mixed_precision):
                losses = self.model(batch)
            self._scaler.scale(sum(losses.values()) / self._micro_batches).backward()
        return losses

    def _number_in_batch(self, number: int) -> int:
        return comm.get_rank() * self._micro_batches + number

    def state_dict(self) -> dict[str, Any]:
        """The host's state with the number of samples, and the scaler's where it is in use."""
        state = {**super().state_dict(), "samples": self.samples}
        return {**state, "grad_scaler": self._scaler.state_dict()} if self._mixed_precision else state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Also of the host's loops, which count no samples: every iteration then had today's batch."""
        super().load_state_dict(state_dict)
        self.samples = state_dict.get("samples", (state_dict["iteration"] + 1) * self._images_per_step)
        if self._mixed_precision and "grad_scaler" in state_dict:
            self._scaler.load_state_dict(state_dict["grad_scaler"])


def _seed_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
