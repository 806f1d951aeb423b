"""One knob, RETHINK.SCHEDULE, to the solver keys that follow from it."""

import math

from detectron2.config import CfgNode, get_cfg

from ..errors import UserError
from ..solver.schedule import REFERENCE_BATCH, Schedule, build_schedule

# Key of RETHINK, in iterations of 16 images -> the host's key that follows from it.
_PERIODS = {
    "REFERENCE_EVAL_PERIOD": ("TEST", "EVAL_PERIOD"),
    "REFERENCE_CHECKPOINT_PERIOD": ("SOLVER", "CHECKPOINT_PERIOD"),
}


def resolve(cfg: CfgNode) -> None:
    """Fill SOLVER.MAX_ITER, STEPS, BASE_LR and WARMUP_ITERS in place from RETHINK.SCHEDULE, and the periods.

    Does nothing where SCHEDULE is "". Resolving a resolved config changes nothing. Raises `UserError`
    where one of the four was set by hand to something else, because one of the two is then not meant. The
    periods of evaluation and checkpoints may be set by hand.
    """
    if not cfg.RETHINK.SCHEDULE:
        return
    if cfg.SOLVER.IMS_PER_BATCH < 1:
        raise UserError(f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}; it must be at least 1.")
    schedule = build_schedule(
        cfg.RETHINK.SCHEDULE,
        cfg.SOLVER.IMS_PER_BATCH,
        images_per_epoch=cfg.RETHINK.IMAGES_PER_EPOCH,
        images_1x=cfg.RETHINK.IMAGES_1X,
        reference_lr=cfg.RETHINK.REFERENCE_LR,
        reference_warmup_iters=cfg.RETHINK.REFERENCE_WARMUP_ITERS,
        drops=_drops(cfg),
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
    for reference, (node, key) in _PERIODS.items():
        if cfg[node][key] == get_cfg()[node][key]:
            cfg[node][key] = _period(cfg, reference)


def scale_to(cfg: CfgNode, processes: int) -> None:
    """Let `cfg` fit a number of processes, where RETHINK.IMAGES_PER_GPU says how: batch and all that follows.

    Raises `UserError` where learning rate and length would not follow.
    """
    if cfg.SOLVER.REFERENCE_WORLD_SIZE and cfg.RETHINK.SCHEDULE:
        raise UserError(
            "SOLVER.REFERENCE_WORLD_SIZE is for a solver set by hand. With RETHINK.SCHEDULE, set "
            "RETHINK.IMAGES_PER_GPU instead; everything follows from it."
        )
    if not cfg.RETHINK.IMAGES_PER_GPU:
        return
    if not cfg.RETHINK.SCHEDULE:
        raise UserError(
            "RETHINK.IMAGES_PER_GPU needs RETHINK.SCHEDULE, from which learning rate and length follow. Set "
            "both, or SOLVER.IMS_PER_BATCH alone."
        )
    batch = cfg.RETHINK.IMAGES_PER_GPU * processes
    if batch == cfg.SOLVER.IMS_PER_BATCH:
        return
    for reference, (node, key) in _PERIODS.items():
        if cfg[node][key] == _period(cfg, reference):
            cfg[node][key] = get_cfg()[node][key]
    cfg.SOLVER.IMS_PER_BATCH = batch
    resolve_anew(cfg)


def _period(cfg: CfgNode, reference: str) -> int:
    """Iterations of the config's batch; the host's default where there is no reference."""
    node, key = _PERIODS[reference]
    if not cfg.RETHINK[reference]:
        return get_cfg()[node][key]
    return max(1, round(cfg.RETHINK[reference] * REFERENCE_BATCH / cfg.SOLVER.IMS_PER_BATCH))


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


def _drops(cfg: CfgNode) -> tuple[float, ...]:
    drops = cfg.RETHINK.DROPS
    if not isinstance(drops, (list, tuple)) or not all(type(drop) in (int, float) for drop in drops):
        raise UserError(f"RETHINK.DROPS {drops!r} is a list of numbers, such as (60000, 20000).")
    return tuple(drops)
