"""The doctor: looks at a built model before its first step and says what would silently go wrong."""

import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from ...errors import UserError
from ..unwrap import unwrap
from .parts import describe_parts
from .patient import STOP, Finding, Patient
from .recipe import (
    check_batch,
    check_batch_norm_size,
    check_disk,
    check_learning_rate,
    check_length,
    check_missing_norms,
    count_images,
    local_folder,
)
from .weights import check_coverage, check_frozen_norms, check_frozen_random, check_profile

__all__ = ["Finding", "check_up", "count_images", "describe_parts", "enforce", "examine", "report"]

CHECKS: tuple[Callable[[Patient], list[Finding]], ...] = (
    check_frozen_random,
    check_frozen_norms,
    check_coverage,
    check_profile,
    check_disk,
    check_missing_norms,
    check_batch_norm_size,
    check_learning_rate,
    check_batch,
    check_length,
)


def examine(
    cfg: CfgNode,
    model: nn.Module,
    *,
    coverage: float | None = None,
    missing: Collection[str] | None = None,
    processes: int = 1,
    output_dir: str | Path | None = None,
    num_images: int | None = None,
) -> list[Finding]:
    """What is wrong with `model` and the run that `cfg` describes, the grave findings first.

    `coverage` (0 to 1) and `missing` (names in the model that were not filled) describe the weight file
    or checkpoint that was loaded; None if none was. `output_dir` is OUTPUT_DIR by default, `num_images`
    the size of the training set, RETHINK.IMAGES_PER_EPOCH by default.
    """
    patient = Patient(
        cfg=cfg,
        model=unwrap(model),
        coverage=coverage,
        missing=None if missing is None else frozenset(missing),
        processes=processes,
        output_dir=local_folder(str(output_dir or cfg.OUTPUT_DIR)),
        num_images=num_images,
    )
    findings = [finding for check in CHECKS for finding in check(patient)]
    return sorted(findings, key=lambda finding: finding.severity != STOP)


def report(findings: Sequence[Finding]) -> str:
    """One line per finding."""
    return "\n".join(map(str, findings)) or "healthy: the doctor found nothing."


def enforce(findings: Sequence[Finding], mode: str) -> None:
    """Log the findings; with `mode` "stop" (RETHINK.DOCTOR) raise `UserError` with all grave ones."""
    logger = logging.getLogger(__name__)
    grave = [finding for finding in findings if finding.severity == STOP and mode == "stop"]
    for finding in findings:
        if finding not in grave:
            logger.warning("%s", finding)
    if grave:
        lines = (f"{number}. {one.what} Fix: {one.fix}" for number, one in enumerate(grave, 1))
        ending = "To train all the same, set RETHINK.DOCTOR to warn."
        raise UserError("\n".join(["this run would train something else than meant.", *lines, ending]))


def check_up(
    cfg: CfgNode,
    model: nn.Module,
    *,
    coverage: float | None = None,
    missing: Collection[str] | None = None,
    num_images: int | None = None,
) -> None:
    """`examine` and `enforce` as RETHINK.DOCTOR says, before the first step. Every process calls it.

    All of them go by the findings of the first, so that either all stop or none: the others may see
    another disk.
    """
    mode = cfg.RETHINK.DOCTOR
    if mode == "off":
        return
    loaded = {"coverage": coverage, "missing": missing}
    findings = examine(cfg, model, **loaded, processes=comm.get_world_size(), num_images=num_images)
    findings = comm.all_gather(findings)[0]
    logging.getLogger(__name__).info("Parts of the model:\n%s", describe_parts(unwrap(model), missing))
    enforce(findings, mode)
