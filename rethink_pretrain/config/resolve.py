"""One knob, RETHINK.SCHEDULE, to the solver keys that follow from it."""

import math

from detectron2.config import CfgNode, get_cfg

from ..errors import UserError
from ..solver.schedule import Schedule, build_schedule


def resolve(cfg: CfgNode) -> None:
    """Fill SOLVER.MAX_ITER, STEPS, BASE_LR and WARMUP_ITERS in place from RETHINK.SCHEDULE.

    Does nothing where SCHEDULE is "". Resolving a resolved config changes nothing. Raises `UserError`
    where one of the four was set by hand to something else, because one of the two is then not meant.
    """
    if not cfg.RETHINK.SCHEDULE:
        return
    if cfg.SOLVER.IMS_PER_BATCH < 1:
        raise UserError(f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}; it must be at least 1.")
    schedule = build_schedule(
        cfg.RETHINK.SCHEDULE,
        cfg.SOLVER.IMS_PER_BATCH,
        images_per_epoch=cfg.RETHINK.IMAGES_PER_EPOCH,
        reference_lr=cfg.RETHINK.REFERENCE_LR,
        reference_warmup_iters=cfg.RETHINK.REFERENCE_WARMUP_ITERS,
        drops=tuple(cfg.RETHINK.DROPS),
    )
    untouched = get_cfg().SOLVER
    for name, value in schedule._asdict().items():
        key = name.upper()
        current = cfg.SOLVER[key]
        if current != untouched[key] and current != value and not _close(current, value):
            raise UserError(
                f"SOLVER.{key} {current} contradicts RETHINK.SCHEDULE {cfg.RETHINK.SCHEDULE!r}, which makes "
                f"it {value} at {cfg.SOLVER.IMS_PER_BATCH} images per batch. {_remedy(key)}"
            )
        cfg.SOLVER[key] = value


def resolve_anew(cfg: CfgNode) -> None:
    """`resolve` after a key that SCHEDULE depends on has changed; what was resolved before is forgotten."""
    untouched = get_cfg().SOLVER
    for name in Schedule._fields:
        cfg.SOLVER[name.upper()] = untouched[name.upper()]
    resolve(cfg)


def _close(current: object, value: object) -> bool:
    """Whether a number written by hand, such as 0.03, is the computed one up to rounding."""
    return isinstance(value, float) and isinstance(current, (int, float)) and math.isclose(current, value)


def _remedy(key: str) -> str:
    references = {"BASE_LR": "RETHINK.REFERENCE_LR", "WARMUP_ITERS": "RETHINK.REFERENCE_WARMUP_ITERS"}
    if key in references:
        return f'Set {references[key]} (for 16 images) instead, or SCHEDULE to "" for a solver set by hand.'
    return 'Leave one of them out, or set SCHEDULE to "" for a solver set by hand.'
