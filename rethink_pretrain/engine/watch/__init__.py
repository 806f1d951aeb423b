"""What a run shows and keeps beside the host's metrics: the hooks and writers of RETHINK.WATCH."""

import os

import yaml
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventWriter

from ...checkpoint import RethinkCheckpointer
from ...errors import UserError
from .best import BestCheckpoint
from .early_stop import EarlyStopping
from .histograms import Histograms
from .images import PredictionImages
from .trend import Trend
from .validation_loss import ValidationLoss, build_loader
from .wandb_writer import WandbWriter
from .writers import PromptWriter

__all__ = ["PromptWriter", "build_watch_hooks", "build_watch_writers"]


def build_watch_hooks(cfg: CfgNode, checkpointer: RethinkCheckpointer) -> list[HookBase]:
    """In their order; they come behind the evaluation and before the writers, which write what they find.

    Raises `UserError` for settings that cannot work and for earlier runs that are none.
    """
    watch, period, names = cfg.RETHINK.WATCH, cfg.TEST.EVAL_PERIOD, cfg.DATASETS.TEST
    _check(cfg)
    main = comm.is_main_process()
    ret: list[HookBase] = []
    if main and watch.BEST_METRIC:
        # First: whatever fails after it, the best weights are on the disk.
        ret.append(BestCheckpoint(watch.BEST_METRIC, checkpointer))
    if watch.VAL_LOSS_IMAGES:
        # In all processes, each of which computes its share.
        load = build_loader(cfg, names[0], watch.VAL_LOSS_IMAGES)
        ret.append(ValidationLoss(load, period, cfg.RETHINK.SPEED.PRECISION))
    if main:
        ret.append(Trend(cfg.OUTPUT_DIR, cfg.SOLVER.IMS_PER_BATCH, watch.EXPECTED))
    if main and watch.IMAGES and names:
        # The evaluator writes one file, which holds the last of the data sets.
        results = os.path.join(cfg.OUTPUT_DIR, "inference", "coco_instances_results.json")
        ret.append(PredictionImages(names[-1], watch.IMAGES, results, cfg.INPUT.FORMAT))
    if main and watch.HISTOGRAM_PERIOD:
        ret.append(Histograms(watch.HISTOGRAM_PERIOD))
    if watch.PATIENCE:
        # Last, when all have seen the evaluation; in all processes, which end together.
        ret.append(
            EarlyStopping(
                watch.BEST_METRIC,
                watch.PATIENCE,
                last_drop=last_drop(cfg),
                eval_period=period,
                output_dir=cfg.OUTPUT_DIR,
            )
        )
    return ret


def build_watch_writers(cfg: CfgNode) -> list[EventWriter]:
    """For the main process; they come before the host's, whose TensorBoard writer clears the images."""
    mode = cfg.RETHINK.WATCH.WANDB
    return [WandbWriter(cfg.OUTPUT_DIR, mode, yaml.safe_load(cfg.dump()))] if mode else []


def last_drop(cfg: CfgNode) -> int:
    """Iterations until the learning rate drops for the last time; 0 without drops."""
    if cfg.SOLVER.LR_SCHEDULER_NAME != "WarmupMultiStepLR":
        return 0
    return max((step for step in cfg.SOLVER.STEPS if step < cfg.SOLVER.MAX_ITER), default=0)


def _check(cfg: CfgNode) -> None:
    watch = cfg.RETHINK.WATCH
    if watch.PATIENCE and not (watch.BEST_METRIC and cfg.TEST.EVAL_PERIOD > 0):
        raise UserError(
            f"RETHINK.WATCH.PATIENCE {watch.PATIENCE} needs a metric and evaluations to count: set "
            "RETHINK.WATCH.BEST_METRIC, for example to bbox/AP, and TEST.EVAL_PERIOD above 0."
        )
    if watch.VAL_LOSS_IMAGES and not cfg.DATASETS.TEST:
        raise UserError(
            "RETHINK.WATCH.VAL_LOSS_IMAGES needs images: set DATASETS.TEST, or VAL_LOSS_IMAGES to 0."
        )
