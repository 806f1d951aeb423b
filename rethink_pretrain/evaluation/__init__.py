"""Evaluation: COCO AP that is always a number, the metrics of other data sets, augmented tests."""

from .batches import in_batches
from .box_masks import with_box_masks
from .build import EVALUATORS, build_evaluator
from .coco import RethinkCOCOEvaluator
from .hotcoco_ap import import_hotcoco
from .progress import batches_through, with_progress
from .tta import RethinkTTA, build_tta_model, evaluate_tta

__all__ = [
    "EVALUATORS",
    "RethinkCOCOEvaluator",
    "RethinkTTA",
    "batches_through",
    "build_evaluator",
    "build_tta_model",
    "evaluate_tta",
    "import_hotcoco",
    "in_batches",
    "with_box_masks",
    "with_progress",
]
