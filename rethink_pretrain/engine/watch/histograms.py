"""Histograms of weights and gradients for TensorBoard."""

import torch
from detectron2.engine import HookBase

from ..unwrap import unwrap


class Histograms(HookBase):
    """Puts weights/<name> and gradients/<name> of all that trains into the storage every `period` iterations.

    Gradients are those of the last update, after clipping. For the main process.
    """

    def __init__(self, period: int):
        self._period = period

    def after_step(self) -> None:
        """Gradients stay until the next iteration zeroes them."""
        if (self.trainer.iter + 1) % self._period:
            return
        for name, parameter in unwrap(self.trainer.model).named_parameters():
            if parameter.requires_grad:
                self._put(f"weights/{name}", parameter.detach())
                if parameter.grad is not None:
                    self._put(f"gradients/{name}", parameter.grad)

    def _put(self, name: str, values: torch.Tensor) -> None:
        values = values.flatten().float()
        values = values[values.isfinite()]  # the host counts between the smallest and the largest
        if len(values):
            self.trainer.storage.put_histogram(name, values, bins=64)
