"""The paper's switch: plain Mask R-CNN first, Cascade R-CNN for the last iterations."""

import logging

from detectron2.config import CfgNode
from detectron2.engine import HookBase

from ..errors import UserError
from ..modeling.cascade import SwitchedCascadeROIHeads
from ..solver.schedule import REFERENCE_BATCH
from .unwrap import unwrap

logger = logging.getLogger(__name__)


class CascadeSwitch(HookBase):
    """Turns the cascade of the model on when `iterations` are left; a resumed run finds it as it was."""

    def __init__(self, iterations: int):
        self._iterations = iterations

    def before_train(self) -> None:
        """Raises `UserError` where the model has no cascade, and not only when it is to be turned on."""
        model = unwrap(self.trainer.model)
        if not hasattr(getattr(model, "roi_heads", None), "turn_on"):
            raise UserError(
                f"RETHINK.CASCADE_ITERS needs RoI heads with a cascade, which {type(model).__name__} does "
                "not have. Set it to 0, or MODEL.META_ARCHITECTURE to GeneralizedRCNN or PanopticFPN."
            )

    def before_step(self) -> None:
        """Before the first iteration of the cascade's share, once."""
        if self.trainer.iter < self.trainer.max_iter - self._iterations:
            return
        roi_heads = unwrap(self.trainer.model).roi_heads
        if roi_heads.is_on:
            return
        roi_heads.turn_on()
        for parameter in roi_heads.idle_parameters():
            # What it holds stems from the weights before they became copies of the first stage.
            self.trainer.optimizer.state.pop(parameter, None)
        logger.info("Iteration %d: the cascade is on for the rest of the training.", self.trainer.iter)


def build_cascade_switch(cfg: CfgNode) -> CascadeSwitch | None:
    """The hook for RETHINK.CASCADE_ITERS iterations of 16 images, 0 for all; None where there is no switch.

    Raises `UserError` where that would be the whole training or more.
    """
    if SwitchedCascadeROIHeads.__name__ != cfg.MODEL.ROI_HEADS.NAME:
        return None
    if not cfg.RETHINK.CASCADE_ITERS:  # MODEL.WEIGHTS may be of a model whose cascade was off
        return CascadeSwitch(cfg.SOLVER.MAX_ITER)
    iterations = round(cfg.RETHINK.CASCADE_ITERS * REFERENCE_BATCH / cfg.SOLVER.IMS_PER_BATCH)
    if not 0 < iterations < cfg.SOLVER.MAX_ITER:
        raise UserError(
            f"RETHINK.CASCADE_ITERS {cfg.RETHINK.CASCADE_ITERS} (of 16 images) is {iterations} of the run's "
            f"{cfg.SOLVER.MAX_ITER} iterations. Set it lower, or to 0 for a cascade from the start."
        )
    return CascadeSwitch(iterations)
