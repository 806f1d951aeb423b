"""Evaluation: COCO AP in which every evaluation of a run, also one without predictions, is a number."""

from .coco import RethinkCOCOEvaluator, build_evaluator

__all__ = ["RethinkCOCOEvaluator", "build_evaluator"]
