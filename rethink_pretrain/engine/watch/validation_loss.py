"""The training losses on validation images."""

import contextlib
import copy
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...data import RethinkDatasetMapper, build_augmentations
from ..precision import autocast
from ..unwrap import unwrap

Batches = Iterable[list[dict[str, Any]]]

_SEED = 0  # of the proposals that the losses sample, so that evaluations differ by the model alone


class ValidationLoss(HookBase):
    """Puts val_loss/<name of the loss> and val_loss/total_loss into the storage, at every evaluation.

    Training does not notice: a copy of the model computes them, in train mode but for BatchNorm, which uses
    its running statistics, and the generators of random numbers stay where they are. In all processes, each
    of which takes its share of the images.
    """

    def __init__(self, load: Callable[[], Batches], eval_period: int, precision: str = "fp32"):
        """`load` gives this process's batches, of one image each; `eval_period` 0 is at the end alone.

        `precision` is that of training: "fp32" or "bf16".
        """
        self._load, self._period, self._precision = load, eval_period, precision

    def after_step(self) -> None:
        """In the iterations of the host's EvalHook."""
        done = self.trainer.iter + 1
        if self._period > 0 and done % self._period == 0 and done != self.trainer.max_iter:
            self._measure()

    def after_train(self) -> None:
        """At the end, where training has come to it."""
        if self.trainer.iter + 1 >= self.trainer.max_iter:
            self._measure()

    def _measure(self) -> None:
        model = unwrap(self.trainer.model)
        with autocast(next(model.parameters()).device, self._precision):
            sums, count = sum_losses(model, self._load(), self.trainer.iter)
        parts = comm.all_gather((sums, count))
        count = sum(count for _, count in parts)
        if count and comm.is_main_process():
            total = sum((sums for sums, _ in parts), Counter())
            means = {f"val_loss/{name}": total[name] / count for name in sums}
            means["val_loss/total_loss"] = sum(means.values())
            self.trainer.storage.put_scalars(**means, smoothing_hint=False)


def sum_losses(model: nn.Module, batches: Batches, iteration: int) -> tuple[Counter, int]:
    """Each loss of `model`, which stays as it is, summed over `batches`, and their number."""
    sums, count = Counter(), 0
    with preserved_generators(), torch.no_grad(), EventStorage(iteration):
        twin = copy.deepcopy(model).train()
        for module in twin.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        torch.manual_seed(_SEED)
        for batch in batches:
            for name, loss in twin(batch).items():
                sums[name] += float(loss)
            count += 1
    return sums, count


@contextlib.contextmanager
def preserved_generators() -> Iterator[None]:
    """The generators of `random`, NumPy and torch, on all devices, end where they began."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if devices:
            torch.cuda.set_rng_state_all(devices)


def build_loader(cfg: CfgNode, dataset_name: str, num_images: int) -> Callable[[], Batches]:
    """This process's share of the first `num_images` images, resized as in testing, never flipped."""
    augmentations = build_augmentations(cfg, is_train=False)
    mapper = RethinkDatasetMapper(cfg, is_train=True, augmentations=augmentations)
    records = DatasetCatalog.get(dataset_name)[:num_images][comm.get_rank() :: comm.get_world_size()]
    return lambda: ([mapper(record)] for record in records)
