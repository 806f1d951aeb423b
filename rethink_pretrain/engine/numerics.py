"""A step whose loss or gradient is no good is seen by all processes at once and never reaches the weights."""

import contextlib
import logging
import math
import statistics
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from ..errors import UserError
from ..solver.schedule import REFERENCE_BATCH
from .collectives import rows_of_processes, sum_over_processes
from .incidents import FILE_NAME, record_incident
from .unwrap import unwrap

logger = logging.getLogger(__name__)

NON_FINITE_LOSS = "non-finite loss"
EXPLODING_LOSS = "exploding loss"
NON_FINITE_GRADIENT = "non-finite gradient"

_WINDOW = 100  # good steps whose losses a new one is compared with
_ENOUGH = 20  # of them, before which nothing explodes

_MOST_LOSSES = 64  # of a model that several processes train; DETR-like ones have some 30

_DONE = {
    "skip": "the step is left out",
    "lower_lr": "the step is left out, and the learning rate halved",
    "roll_back": "back to the last checkpoint",
    "stop": "training ends",
}


class RollBack(Exception):
    """Training has to go back to the last checkpoint, and on with the images behind those of a bad step.

    All processes raise it in the same step. `iteration` is that step's, `samples` the position behind its
    images, and `counts` what the guard of the resumed run has to go on with.
    """

    def __init__(self, iteration: int, samples: int, counts: dict[str, int]):
        super().__init__(f"iteration {iteration} cannot be trained")
        self.iteration, self.samples, self.counts = iteration, samples, counts


class Outcome(NamedTuple):
    """What all processes know of a step behind its backward pass."""

    loss: float  # the mean over all processes of the sum of all losses
    losses: dict[str, float]  # each one's mean over all processes
    data_time: float  # s, of the process that has waited longest for its images
    gradients_are_finite: bool  # those of all processes
    counts: list[float]  # each one's sum over all processes


class Finding(NamedTuple):
    """What is wrong with a step, "" for nothing, and its loss, the mean over all processes."""

    kind: str
    loss: float


class Step(NamedTuple):
    """A step as incidents.jsonl describes it."""

    iteration: int
    samples: int  # that all processes have trained on before
    images: int  # of all processes in this step
    learning_rate: float
    losses: dict[str, torch.Tensor]  # of this process
    image_ids: list[Any]  # of this process


class LossGuard:
    """Judges each step between backward and update, from what all processes know, and acts on a bad one.

    incidents: bad steps of the run so far. in_a_row: those since training last got beyond one.
    """

    def __init__(
        self,
        *,
        policy: str,
        max_in_a_row: int,
        output_dir: str | Path,
        explosion: float = 0.0,
        seed: int = 0,
        lower_lr: Callable[[], None] | None = None,
        advice: str = "",
    ):
        """The values of RETHINK.NUMERICS; `lower_lr` serves that policy, `advice` ends a `UserError`."""
        assert policy in _DONE and (lower_lr or policy != "lower_lr"), policy
        self._policy, self._max_in_a_row, self._explosion = policy, max_in_a_row, explosion
        self._output_dir, self._seed = Path(output_dir), seed
        self._lower_lr, self._advice = lower_lr, advice
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self._furthest = -1  # iteration of the furthest bad step
        self.incidents = self.in_a_row = 0

    def examine(self, outcome: Outcome) -> Finding:
        """All processes come to the same finding, for all have the same `outcome`."""
        loss = outcome.loss
        if not math.isfinite(loss):
            return Finding(NON_FINITE_LOSS, loss)
        if self._explosion and len(self._losses) >= _ENOUGH and loss > self._explosion * self._median():
            return Finding(EXPLODING_LOSS, loss)
        return Finding("" if outcome.gradients_are_finite else NON_FINITE_GRADIENT, loss)

    def accept(self, finding: Finding, iteration: int) -> None:
        """The step was good and has updated the weights."""
        self._losses.append(finding.loss)
        if iteration > self._furthest:
            self.in_a_row = 0

    def handle(self, finding: Finding, step: Step, model: nn.Module) -> None:
        """Record the bad step and do what the policy asks; the caller has not updated the weights.

        All processes call it. Raises `RollBack`, or `UserError` where training has to end.
        """
        self.incidents += 1
        self.in_a_row += 1
        self._furthest = max(self._furthest, step.iteration)
        action, reason = self._choose(model)
        self._report(finding, step, action, reason)
        if action == "stop":
            raise UserError(self._last_word(finding, step))
        if action == "roll_back":
            raise RollBack(step.iteration, step.samples + step.images, self._counts())
        if action == "lower_lr":
            self._lower_lr()

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, with which a resumed run finds what the straight one does."""
        return {"losses": list(self._losses), **self._counts()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Of `state_dict`, or `RollBack.counts` alone, which keeps the losses."""
        self._losses = deque(state.get("losses", self._losses), maxlen=_WINDOW)
        self.incidents, self.in_a_row = state["incidents"], state["in_a_row"]
        self._furthest = state["furthest"]

    def _counts(self) -> dict[str, int]:
        return {"incidents": self.incidents, "in_a_row": self.in_a_row, "furthest": self._furthest}

    def _median(self) -> float | None:
        return statistics.median(self._losses) if self._losses else None

    def _choose(self, model: nn.Module) -> tuple[str, str]:
        """What to do, and why where it is not the policy."""
        if self.in_a_row >= self._max_in_a_row:
            return "stop", f"{self.in_a_row} in a row"
        if self._policy in ("skip", "lower_lr") and _statistics_are_bad(model):
            return "roll_back", "the step has left values in the model's buffers that are not finite"
        return self._policy, ""

    def _report(self, finding: Finding, step: Step, action: str, reason: str) -> None:
        losses = {name: float(loss) for name, loss in step.losses.items()}
        parts = comm.gather((losses, step.image_ids))
        if not comm.is_main_process():
            return
        logger.warning(
            "Iteration %d: %s (%g): %s%s. Its images are in %s.",
            *(step.iteration, finding.kind, finding.loss, _DONE[action]),
            *(f", because {reason}" if reason else "", FILE_NAME),
        )
        record_incident(
            self._output_dir,
            iteration=step.iteration,
            kind=finding.kind,
            action=action,
            **({"reason": reason} if reason else {}),
            loss=finding.loss,
            median=self._median(),
            lr=step.learning_rate,
            seed=self._seed,
            samples=step.samples,
            losses=[losses for losses, _ in parts],  # of each process
            image_ids=[ids for _, ids in parts],
        )

    def _last_word(self, finding: Finding, step: Step) -> str:
        count = f", incident {self.in_a_row} in a row" if self.in_a_row > 1 else ""
        words = f"Iteration {step.iteration}: {finding.kind} ({finding.loss:g}){count}"
        return f"{words}; its images are in {self._output_dir / FILE_NAME}. {self._advice}".strip()


def build_loss_guard(cfg: CfgNode, lower_lr: Callable[[], None]) -> LossGuard:
    """The guard that RETHINK.NUMERICS describes; `lower_lr` halves the learning rate of the run."""
    numerics = cfg.RETHINK.NUMERICS
    return LossGuard(
        policy=numerics.POLICY,
        explosion=numerics.EXPLOSION,
        max_in_a_row=numerics.MAX_IN_A_ROW,
        output_dir=cfg.OUTPUT_DIR,
        seed=cfg.SEED,
        lower_lr=lower_lr,
        advice=_advise(cfg),
    )


def halve_learning_rate(
    optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler
) -> None:
    """For the rest of the run: both keep in their states what the schedule multiplies."""
    for group in optimizer.param_groups:
        group["lr"] /= 2
        group["initial_lr"] /= 2
    scheduler.base_lrs = [lr / 2 for lr in scheduler.base_lrs]


def _advise(cfg: CfgNode) -> str:
    solver, model = cfg.SOLVER, cfg.MODEL
    linear_rule = cfg.RETHINK.REFERENCE_LR * solver.IMS_PER_BATCH / REFERENCE_BATCH
    return (
        "What helps, with the values of this run: a longer warm-up "
        f"(RETHINK.REFERENCE_WARMUP_ITERS {cfg.RETHINK.REFERENCE_WARMUP_ITERS}, which makes "
        f"SOLVER.WARMUP_ITERS {solver.WARMUP_ITERS}); clipping (SOLVER.CLIP_GRADIENTS.ENABLED "
        f"{solver.CLIP_GRADIENTS.ENABLED}); MODEL.PIXEL_STD {model.PIXEL_STD} and MODEL.PIXEL_MEAN "
        f"{model.PIXEL_MEAN} that fit MODEL.WEIGHTS {model.WEIGHTS!r}; a lower SOLVER.BASE_LR "
        f"({solver.BASE_LR:g} for {solver.IMS_PER_BATCH} images; the linear rule gives {linear_rule:g})."
    )


def forward_or_nan(model: nn.Module, batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """The losses of `batch`, or a loss of NaN where the host refuses values that are not finite.

    It does so in the process that has them alone, and the others would wait for that one's gradients for
    ever.
    """
    try:
        return model(batch)
    except (FloatingPointError, AssertionError) as error:  # of its RPN, and of its boxes
        if isinstance(error, AssertionError) and "NaN" not in str(error):
            raise
        logger.warning("Process %d: %s", comm.get_rank(), error)
    with _without_forward(unwrap(model)):
        return model(batch)  # DistributedDataParallel expects the gradients of one pass


@contextlib.contextmanager
def _without_forward(module: nn.Module) -> Iterator[None]:
    """For a while, a pass of `module` only gives every parameter a gradient of NaN."""
    trained = [p for p in module.parameters() if p.requires_grad]
    module.forward = lambda batch: {"total_loss": math.nan * sum(p.sum() for p in trained)}
    try:
        yield
    finally:
        del module.forward  # the class has its own


def share_outcome(
    losses: dict[str, torch.Tensor],
    gradients: list[torch.Tensor],
    data_time: float,
    counts: Sequence[int] = (),
) -> Outcome:
    """All processes call it with their losses (scalars), gradients and seconds of waiting for images.

    `counts` are whole numbers below 2^53 to add up, as many in all processes. One wait for the device and,
    with several processes, one collective serve the guard, the metrics and these sums.
    A process whose forward pass has failed may lack losses that the others have; its NaN is in the sum.
    Raises, in all processes, `RuntimeError` where the losses are finite but have not the same names, and
    `ValueError` where several processes have more than 64.
    """
    names = sorted(losses)
    row = _pack(losses, names, gradients, [data_time, zlib.crc32(" ".join(names).encode()), *counts])
    times, prints, *columns = zip(*rows_of_processes(row), strict=True)
    sums = [sum(column) for column in columns[: len(counts)]]
    digests, *columns = columns[len(counts) :]
    means = [sum(column) / len(column) for column in columns]
    loss = sum(means)  # also of what this process lacks
    if math.isfinite(loss) and len(set(prints)) > 1:
        raise RuntimeError(f"The model has other losses in other processes; in this one it has {names}.")
    return Outcome(loss, dict(zip(names, means)), max(times), all(map(math.isfinite, digests)), sums)


def _pack(
    losses: dict[str, torch.Tensor], names: list[str], gradients: list[torch.Tensor], known: list[float]
) -> torch.Tensor:
    """What the host has `known`, digest of the gradients, losses by name: as long in all processes.

    It is in float64, on the device of the losses, or on the CPU where that one has no float64.
    """
    alone = comm.get_world_size() == 1
    if not alone and len(names) > _MOST_LOSSES:
        raise ValueError(f"The model has {len(names)} losses; several processes can share {_MOST_LOSSES}.")
    ordered = [losses[name].detach().reshape(()) for name in names]
    digest = _digest(gradients) if gradients else torch.zeros_like(ordered[0])
    values = torch.stack([digest, *ordered])
    if values.device.type == "mps":
        values = values.cpu()
    width = len(known) + 1 + (len(names) if alone else _MOST_LOSSES)
    row = values.new_zeros(width, dtype=torch.float64)
    for number, value in enumerate(known):
        row[number] = value  # a kernel with a constant: a copy from the host would wait for the device
    row[len(known) : len(known) + len(values)] = values
    return row


def _digest(gradients: list[torch.Tensor]) -> torch.Tensor:
    """A number that is finite where all `gradients` are.

    On a GPU from norms, which are a few kernels for all; on a CPU from sums, which take half of their time.
    """
    parts = torch._foreach_norm(gradients) if gradients[0].is_cuda else [g.sum() for g in gradients]
    return torch.stack(parts).sum()


def _statistics_are_bad(model: nn.Module) -> bool:
    """Whether a buffer of any process holds NaN or infinities: a skipped update does not undo BatchNorm's."""
    buffers = (buffer for buffer in model.buffers() if buffer.is_floating_point())
    bad = not all(torch.isfinite(buffer).all() for buffer in buffers)
    return sum_over_processes(torch.tensor(float(bad))).item() > 0
