"""Pascal VOC's AP of boxes, as the host computes it, without its NaN."""

import logging

from detectron2.evaluation import PascalVOCDetectionEvaluator
from detectron2.evaluation.pascal_voc_evaluation import parse_rec
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from ..errors import UserError

logger = logging.getLogger(__name__)


class RethinkPascalVOCEvaluator(PascalVOCDetectionEvaluator):
    """The host's evaluator, over the classes that have objects in the split.

    Results, in percent: bbox -> {AP, AP50, AP75}, each a mean over these classes. Objects marked difficult do
    not count. The host divides by the number of objects: a single prediction of a class without any makes all
    three NaN. Pascal VOC's own splits have objects of every class, so there nothing changes.
    """

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Metrics over the split on the main process, {} on the others.

        Raises `UserError` for an annotation file that the host cannot read.
        """
        names, predictions = self._class_names, self._predictions
        found = self._classes_with_objects()
        kept = [k for k, name in enumerate(names) if name in found]
        if comm.is_main_process() and len(kept) < len(names):
            logger.warning(
                "%s has objects of %d of its %d classes: AP is the mean over these.",
                self._dataset_name,
                len(kept),
                len(names),
            )
        if not kept:
            return {"bbox": dict.fromkeys(("AP", "AP50", "AP75"), float("nan"))}
        try:
            self._class_names = [names[k] for k in kept]
            # All processes gather, so all renumber.
            self._predictions = {i: predictions[k] for i, k in enumerate(kept) if k in predictions}
            results = super().evaluate() or {}
        finally:
            self._class_names, self._predictions = names, predictions
        return {task: {key: float(value) for key, value in res.items()} for task, res in results.items()}

    def _classes_with_objects(self) -> set[str]:
        found = set()
        with PathManager.open(self._image_set_path) as f:
            paths = [self._anno_file_template.format(line.strip()) for line in f]
        for path in paths:
            try:
                objects = parse_rec(path)
            except (OSError, SyntaxError, ValueError, AttributeError, TypeError) as error:
                raise UserError(
                    f"{path}: Detectron2's Pascal VOC evaluation cannot read it ({error}). "
                    "It wants pose, truncated, difficult and whole numbers in every bndbox."
                ) from None
            found.update(obj["name"] for obj in objects if not obj["difficult"])
        return found
