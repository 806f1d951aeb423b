"""Predictions beside the ground truth, for TensorBoard's image tab."""

from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from ...data import read_image
from ...data.datasets.register import image_id
from ...data.datasets.subsets import choose
from ...files import read_json
from .evaluations import EvaluationHook

MIN_SCORE = 0.3  # of a prediction that is drawn


class PredictionImages(EvaluationHook):
    """Puts predictions/<file name> into the storage after each evaluation. For the main process.

    The same images each time, drawn by hash order among those with objects. Predictions are those that the
    COCO evaluator has just written; where there is no such file, there are no pictures.
    """

    def __init__(self, dataset_name: str, num_images: int, results: str | Path, image_format: str = "BGR"):
        """`results`: OUTPUT_DIR/inference/coco_instances_results.json; `image_format` as INPUT.FORMAT."""
        self._dataset_name, self._num_images = dataset_name, num_images
        self._results, self._format = Path(results), image_format
        self._chosen: list[dict[str, Any]] = []

    def after_evaluation(self, metrics: dict[str, float]) -> None:
        """Draw."""
        if not self._results.is_file():
            return
        from ...analysis.draw import as_rgb, draw_comparison  # imports matplotlib, which takes a second

        records = self._records()  # the metadata is complete when they are loaded
        predictions = self._read_predictions()
        names = dict(enumerate(MetadataCatalog.get(self._dataset_name).get("thing_classes", ())))
        for record in records:
            found = predictions.get(record["image_id"], [])
            stored = read_image(record["file_name"], "RGB" if self._format != "RAW" else "RAW")
            picture = draw_comparison(as_rgb(stored), ground_truth(record), found, names)
            name = f"predictions/{Path(record['file_name']).name}"
            self.trainer.storage.put_image(name, np.ascontiguousarray(picture.transpose(2, 0, 1)))

    def _records(self) -> list[dict[str, Any]]:
        if not self._chosen:
            shown = {image_id(r): r for r in DatasetCatalog.get(self._dataset_name) if r.get("annotations")}
            self._chosen = [shown[i] for i in choose(shown, self._num_images)]
        return self._chosen

    def _read_predictions(self) -> dict[int | str, list[dict]]:
        """Image id -> results of COCO's form, with the host's classes as categories."""
        to_class = MetadataCatalog.get(self._dataset_name).get("thing_dataset_id_to_contiguous_id", {})
        found: dict[int | str, list[dict]] = {}
        for result in read_json(self._results):
            if result["score"] >= MIN_SCORE:
                category = to_class.get(result["category_id"], result["category_id"])
                found.setdefault(result["image_id"], []).append({**result, "category_id": category})
        return found


def ground_truth(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The annotations of a record of the host's form, with boxes as COCO's [x, y, width, height] in px."""
    return [
        {**a, "bbox": BoxMode.convert(list(map(float, a["bbox"])), a["bbox_mode"], BoxMode.XYWH_ABS)}
        for a in record["annotations"]
    ]
