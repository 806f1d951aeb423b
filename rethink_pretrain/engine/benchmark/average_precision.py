"""COCO AP of made detections: pycocotools, the default and hotcoco; and masks on their way to RLE."""

import contextlib
import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances

from ...evaluation import RethinkCOCOEvaluator
from .made import HEIGHT, WIDTH, make_detections, make_document, register_made
from .rows import STOCK, speed_row, time_by_turns
from .settings import Settings

DEFAULT, EXTRA = "faster-coco-eval", "hotcoco"
_BARS = {"bbox": {DEFAULT: 8.0, EXTRA: 50.0}, "segm": {DEFAULT: 4.0, EXTRA: 50.0}}
_NAMES = {"bbox": "boxes", "segm": "masks"}
_TOLERANCE = 1e-12  # of each of the 12 numbers, which are shares
_SET = "benchmark_encoding"
_MASKS = 100  # per image: the most that COCO counts


def measure_eval(settings: Settings) -> list[dict[str, Any]]:
    """Rows of evaluate + accumulate for boxes and masks, and of an evaluator that takes in masks."""
    document = make_document(settings.eval_images)
    detections = make_detections(document, settings.eval_per_image)
    path = settings.folder / "ground_truth.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    rows = [_measure(settings, path, detections, task) for task in ("bbox", "segm")]
    return [*rows, _measure_encoding(settings)]


def _measure(settings: Settings, path: Path, detections: list[dict], task: str) -> dict[str, Any]:
    what = f"COCO AP of {_NAMES[task]}, {settings.eval_images:,} images, {len(detections):,} detections"
    stats: dict[str, np.ndarray] = {}
    contestants = {}
    for name, module, evaluator in _implementations(settings.stock):
        with _silent():
            # Each gets objects of its own, into which it writes, and none has what another has left there.
            truth = module.COCO(str(path))
            found = truth.loadRes([_without_box(d) if task == "segm" else dict(d) for d in detections])
        contestants[name] = _evaluate(evaluator, truth, found, task, name, stats)
    seconds = time_by_turns(contestants, settings.eval_rounds, warm_up=0)
    largest = {}
    if STOCK in stats:
        largest = {name: float(np.abs(s - stats[STOCK]).max()) for name, s in stats.items() if name != STOCK}
        assert all(difference <= _TOLERANCE for difference in largest.values()), largest
    bars = _BARS[task] if settings.stock else {}
    facts = {"numbers": stats[DEFAULT].tolist(), "largest_difference": largest}
    return speed_row(what, seconds, unit="evaluations/s", bars=bars, **facts)


def _implementations(stock: bool) -> list[tuple[str, Any, Any]]:
    """Name, module with COCO, and class that evaluates."""
    import faster_coco_eval

    ret = [(DEFAULT, faster_coco_eval, faster_coco_eval.COCOeval_faster)]
    if stock:
        from pycocotools import coco, cocoeval

        ret.insert(0, (STOCK, coco, cocoeval.COCOeval))
    if importlib.util.find_spec("hotcoco"):
        import hotcoco

        ret.append((EXTRA, hotcoco, hotcoco.COCOeval))
    return ret


def _without_box(detection: dict[str, Any]) -> dict[str, Any]:
    """COCO's code would take the area of the box for that of the mask."""
    return {key: value for key, value in detection.items() if key != "bbox"}


def _evaluate(
    evaluator: Any, truth: Any, found: Any, task: str, name: str, stats: dict[str, np.ndarray]
) -> Callable[[], None]:
    """What is on the clock; it leaves the 12 numbers in `stats`."""

    def run() -> None:
        with _silent():
            evaluation = evaluator(truth, found, task)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        stats[name] = np.asarray(evaluation.stats, dtype=np.float64)[:12]

    return run


def _silent() -> contextlib.AbstractContextManager:
    return contextlib.redirect_stdout(io.StringIO())


def _measure_encoding(settings: Settings) -> dict[str, Any]:
    """An evaluator that takes in predictions with masks, and what it keeps of them."""
    path, images = settings.folder / "encoding.json", settings.encoded_images
    path.write_text(json.dumps(make_document(images)), encoding="utf-8")
    register_made(_SET, path, settings.folder)
    predictions = [_predict(number) for number in range(images)]
    evaluators = {"ours": RethinkCOCOEvaluator(_SET, ("segm",), False)}
    if settings.stock:
        host = COCOEvaluator(_SET, ("segm",), False, use_fast_impl=False)
        evaluators = {STOCK: host, **evaluators}
    seconds = time_by_turns(
        {name: _process(evaluator, predictions) for name, evaluator in evaluators.items()}, 5
    )
    kept = {name: _masks(evaluator) for name, evaluator in evaluators.items()}
    assert all(masks == kept["ours"] for masks in kept.values()), "other masks than the host's"
    what = f"masks to RLE, {_MASKS} of {WIDTH}x{HEIGHT} px per image"
    return speed_row(what, seconds, work=images * _MASKS, unit="masks/s")


def _predict(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Input and output of a model for one image, whose masks are ellipses."""
    rng = np.random.default_rng(number)
    center = rng.uniform((0, 0), (WIDTH, HEIGHT), (_MASKS, 2))
    radius = np.exp(rng.uniform(np.log(5), np.log(120), (_MASKS, 2)))
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    masks = [
        ((x - c[0]) / r[0]) ** 2 + ((y - c[1]) / r[1]) ** 2 <= 1 for c, r in zip(center, radius, strict=True)
    ]
    boxes = np.hstack([center - radius, center + radius]).clip(0, (WIDTH, HEIGHT) * 2)
    found = Instances((HEIGHT, WIDTH))
    found.pred_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
    found.scores = torch.as_tensor(rng.random(_MASKS), dtype=torch.float32)
    found.pred_classes = torch.as_tensor(rng.integers(0, 80, _MASKS))
    found.pred_masks = torch.as_tensor(np.stack(masks))
    return {"image_id": number + 1, "height": HEIGHT, "width": WIDTH}, {"instances": found}


def _process(evaluator: Any, predictions: list[tuple[dict, dict]]) -> Callable[[], None]:
    def run() -> None:
        evaluator.reset()
        for inputs, output in predictions:
            copied = Instances(output["instances"].image_size, **output["instances"].get_fields())
            evaluator.process([inputs], [{"instances": copied}])

    return run


def _masks(evaluator: Any) -> list[str]:
    """Of all predictions, in RLE, as the results' file would have them."""
    instances = (item for prediction in evaluator._predictions for item in prediction["instances"])
    return [json.dumps(item["segmentation"], sort_keys=True) for item in instances]
