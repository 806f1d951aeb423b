"""Accuracy of a classifier."""

from typing import Any

import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

_TOP = (1, 5)


class ClassificationEvaluator(DatasetEvaluator):
    """The share of images, in percent, whose label is among the highest scores.

    {"classification": {"top1": ..., "top5": ...}} on the main process, {} on the others; top5 where there are
    more than 5 classes.
    """

    def reset(self) -> None:
        """Forget what was processed."""
        self._hits = dict.fromkeys(_TOP, 0)
        self._images, self._classes = 0, 0

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, torch.Tensor]]) -> None:
        """`inputs` have a "label", `outputs` the "scores" of every class."""
        for record, output in zip(inputs, outputs, strict=True):
            ranked = output["scores"].argsort(descending=True).tolist()
            for top in _TOP:
                self._hits[top] += record["label"] in ranked[:top]
            self._images, self._classes = self._images + 1, len(ranked)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Of all processes together."""
        parts = comm.gather((self._hits, self._images, self._classes))
        if not comm.is_main_process():
            return {}
        images = sum(images for _, images, _ in parts)
        classes = max(classes for *_, classes in parts)
        return {
            "classification": {
                f"top{top}": 100 * sum(hits[top] for hits, *_ in parts) / images
                for top in _TOP
                if classes > top
            }
        }
