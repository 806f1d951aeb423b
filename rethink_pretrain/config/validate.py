"""Combinations that cannot train, refused before the first second of training, each with its fix."""

from detectron2.config import CfgNode

from ..errors import UserError
from ..layers import get_norm_factory

_NORM_KEYS = ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")


def validate(cfg: CfgNode) -> None:
    """Raises `UserError` for the first setting of `cfg` that is impossible or silently wrong."""
    for check in (_check_norms, _check_random_weights, _check_solver):
        check(cfg)


def _check_norms(cfg: CfgNode) -> None:
    for node in _NORM_KEYS:
        try:
            get_norm_factory(cfg.MODEL[node].NORM)
        except UserError as error:
            raise UserError(f"MODEL.{node}.NORM: {error}") from None


def _check_random_weights(cfg: CfgNode) -> None:
    if cfg.MODEL.WEIGHTS:
        return
    if cfg.MODEL.BACKBONE.FREEZE_AT > 0:
        # Costs 3.3 box AP at 3x (Detectron, commit f8ffc87).
        raise UserError(
            f"MODEL.BACKBONE.FREEZE_AT {cfg.MODEL.BACKBONE.FREEZE_AT} would freeze layers that hold random "
            'weights (MODEL.WEIGHTS is ""). Set FREEZE_AT to 0, or give weights.'
        )
    for node in _NORM_KEYS:
        if cfg.MODEL[node].NORM == "FrozenBN":
            raise UserError(
                f"MODEL.{node}.NORM FrozenBN normalises nothing when the weights are random (MODEL.WEIGHTS "
                'is ""). Set it to GN or SyncBN, or give weights.'
            )


def _check_solver(cfg: CfgNode) -> None:
    solver = cfg.SOLVER
    first_drop = min(solver.STEPS, default=solver.MAX_ITER)
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and first_drop <= solver.WARMUP_ITERS:
        raise UserError(
            f"The warm-up of {solver.WARMUP_ITERS} iterations does not end before the first learning-rate "
            f"drop at {first_drop}. Shorten it (RETHINK.REFERENCE_WARMUP_ITERS) or train longer."
        )
