"""COCO AP of made detections, by evaluators and by the packages below them; and masks on their way to RLE."""

import contextlib
import gc
import importlib.util
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import torch
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator, coco_evaluation
from detectron2.layers import paste_masks_in_image
from detectron2.structures import Boxes, Instances
from pycocotools.cocoeval import COCOeval

from ...evaluation import RethinkCOCOEvaluator
from ...evaluation.box_masks import FIELD
from .made import HEIGHT, WIDTH, make_detections, make_document, register_made
from .rows import STOCK, speed_row, time_by_turns
from .settings import Settings

DEFAULT, EXTRA = "faster-coco-eval", "hotcoco"
_BARS = {"bbox": {DEFAULT: 8.0, EXTRA: 50.0}, "segm": {DEFAULT: 4.0, EXTRA: 50.0}}
_NAMES = {"bbox": "boxes", "segm": "masks"}
_TOLERANCE = 1e-12  # of each of the 12 numbers, which are shares
_NUMBERS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
_SETS = ("benchmark_ap", "benchmark_encoding")
_MASKS = 100  # per image: the most that COCO counts
_SIDE = 28  # of a mask as the head predicts it


def measure_eval(settings: Settings) -> list[dict[str, Any]]:
    """Rows of whole evaluators and of their packages, for boxes and masks; and of masks that become RLE."""
    images = {"bbox": settings.eval_images, "segm": settings.eval_mask_images}
    rows = [row for task, number in images.items() for row in _measure(settings, task, number)]
    return [*rows, _measure_encoding(settings)]


def _measure(settings: Settings, task: str, images: int) -> list[dict[str, Any]]:
    """`evaluate()` of evaluators, from predictions in memory to the results and their files; and of it AP."""
    document = make_document(images)
    path = settings.folder / f"{task}.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    detections = make_detections(document, settings.eval_per_image)
    del document
    size = f"{images:,} images, {len(detections):,} detections"
    with _silent():
        evaluators, stats = _time_evaluators(settings, path, detections, task)
        packages, of_packages = _time_packages(path, detections, task, settings.eval_rounds)
    stats |= of_packages
    if settings.stock:  # the host's evaluator calls pycocotools, which need not run twice
        packages = {STOCK: list(_Watched.seconds), **packages}
    expected = stats[STOCK if settings.stock else DEFAULT]
    largest = {name: float(np.abs(np.subtract(numbers, expected)).max()) for name, numbers in stats.items()}
    assert all(difference <= _TOLERANCE for difference in largest.values()), largest
    facts = {"unit": "evaluations/s", "numbers": expected, "largest_difference": largest}
    bars = _BARS[task] if settings.stock else {}
    return [
        speed_row(f"evaluator of {_NAMES[task]}, {size}", evaluators, **facts),
        speed_row(f"COCO AP of {_NAMES[task]}, {size}", packages, bars=bars, **facts),
    ]


Times = dict[str, list[float]]  # contestant -> s, of each round
Stats = dict[str, list[float]]  # contestant -> COCO's 12 numbers, between 0 and 1


def _time_evaluators(
    settings: Settings, path: Path, detections: list[dict], task: str
) -> tuple[Times, Stats]:
    """From predictions in memory to the results, whose files are written, too."""
    register_made(_SETS[0], path, settings.folder)
    DatasetCatalog.get(_SETS[0])  # which tells the classes to the host's evaluator
    evaluators: dict[str, COCOEvaluator] = {}
    if settings.stock:
        folder = str(settings.folder / STOCK)
        evaluators[STOCK] = COCOEvaluator(_SETS[0], (task,), False, folder, use_fast_impl=False)
    for name in (DEFAULT, EXTRA) if importlib.util.find_spec(EXTRA) else (DEFAULT,):
        folder = str(settings.folder / name)
        evaluators[name] = RethinkCOCOEvaluator(_SETS[0], (task,), False, folder, ap_by=name)
    found: dict[str, dict[str, float]] = {}
    runs = {}
    for name, evaluator in evaluators.items():
        rounds = [
            _as_predictions(detections) for _ in range(settings.eval_rounds)
        ]  # the host writes into them
        runs[name] = _run_evaluator(evaluator, rounds, task, name, found)
    _Watched.seconds.clear()
    with _frozen(), mock.patch.object(coco_evaluation, "COCOeval", _Watched):
        seconds = time_by_turns(runs, settings.eval_rounds, warm_up=0)
    stats = {
        f"evaluator, {name}": [one[key] / 100 for key in _NUMBERS]
        for name, one in found.items()
        if name != STOCK
    }
    if settings.stock:
        stats[STOCK] = list(_Watched.numbers)
        for one in found.values():  # of the host 6 of the 12, and AP of each category
            np.testing.assert_allclose(
                [one[key] for key in found[STOCK]], list(found[STOCK].values()), 0, 1e-10
            )
    return seconds, stats


def _as_predictions(detections: list[dict]) -> list[dict[str, Any]]:
    """As evaluators keep them: of each image, with classes from 0."""
    images: dict[int, list[dict]] = {}
    for one in detections:
        images.setdefault(one["image_id"], []).append({**one, "category_id": one["category_id"] - 1})
    return [{"image_id": image_id, "instances": instances} for image_id, instances in images.items()]


def _run_evaluator(
    evaluator: COCOEvaluator,
    rounds: list[list[dict]],
    task: str,
    name: str,
    found: dict[str, dict[str, float]],
) -> Callable[[], None]:
    """What is on the clock; it leaves the results, in percent, in `found`."""

    def run() -> None:
        evaluator._predictions = rounds.pop()
        found[name] = evaluator.evaluate()[task]

    return run


class _Watched(COCOeval):
    """pycocotools' own, with the seconds of its life up to the 12 numbers, and those of the last one."""

    seconds: ClassVar[list[float]] = []
    numbers: ClassVar[list[float]] = []

    def __init__(self, *args: Any, **kwargs: Any):
        self._begin = time.perf_counter()
        super().__init__(*args, **kwargs)

    def summarize(self) -> None:
        super().summarize()
        self.seconds.append(time.perf_counter() - self._begin)
        self.numbers[:] = map(float, self.stats)


@contextlib.contextmanager
def _frozen() -> Iterator[None]:
    """The collector leaves alone what is there: millions of objects, of which other contestants have most."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _time_packages(path: Path, detections: list[dict], task: str, rounds: int) -> tuple[Times, Stats]:
    """From ground truth and detections that are loaded to the 12 numbers."""
    stats: Stats = {}
    runs = {}
    for name, module, evaluator in _packages():
        # Each gets objects of its own, into which it writes, and none has what another has left there.
        truth = module.COCO(str(path))
        found = truth.loadRes([_without_box(d) if task == "segm" else dict(d) for d in detections])
        runs[name] = _run_package(evaluator, truth, found, task, name, stats)
    with _frozen():
        return time_by_turns(runs, rounds, warm_up=0), stats


def _packages() -> Iterator[tuple[str, Any, Any]]:
    """Name, module with COCO, and class that evaluates."""
    import faster_coco_eval

    yield DEFAULT, faster_coco_eval, faster_coco_eval.COCOeval_faster
    if importlib.util.find_spec(EXTRA):
        import hotcoco

        yield EXTRA, hotcoco, hotcoco.COCOeval


def _without_box(detection: dict[str, Any]) -> dict[str, Any]:
    """COCO's code would take the area of the box for that of the mask."""
    return {key: value for key, value in detection.items() if key != "bbox"}


def _run_package(
    evaluator: Any, truth: Any, found: Any, task: str, name: str, stats: Stats
) -> Callable[[], None]:
    """What is on the clock; it leaves the 12 numbers in `stats`."""

    def run() -> None:
        evaluation = evaluator(truth, found, task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        stats[name] = list(map(float, evaluation.stats[:12]))

    return run


def _silent() -> contextlib.AbstractContextManager:
    return contextlib.redirect_stdout(io.StringIO())


def _measure_encoding(settings: Settings) -> dict[str, Any]:
    """From masks as the mask head predicts them, in their boxes, to what an evaluator keeps of them."""
    path, images = settings.folder / "encoding.json", settings.encoded_images
    path.write_text(json.dumps(make_document(images)), encoding="utf-8")
    register_made(_SETS[1], path, settings.folder)
    predicted = [_predict(number) for number in range(images)]
    evaluators = {"ours": RethinkCOCOEvaluator(_SETS[1], ("segm",), False)}
    runs = {"ours": _process(evaluators["ours"], predicted, _in_boxes)}
    if settings.stock:
        evaluators[STOCK] = COCOEvaluator(_SETS[1], ("segm",), False, use_fast_impl=False)
        runs = {STOCK: _process(evaluators[STOCK], predicted, _pasted), **runs}
    seconds = time_by_turns(runs, 3)
    kept = [_masks(evaluator) for evaluator in evaluators.values()]
    assert all(masks == kept[0] for masks in kept), "other masks than the host's"
    what = f"masks of the head to RLE, {_MASKS} in {WIDTH}x{HEIGHT} px per image"
    return speed_row(what, seconds, work=images * _MASKS, unit="masks/s")


def _predict(number: int) -> tuple[Instances, torch.Tensor]:
    """Boxes and masks (N, side, side), probabilities, of one image: ellipses with noise."""
    rng = np.random.default_rng(number)
    center = rng.uniform((0, 0), (WIDTH, HEIGHT), (_MASKS, 2))
    radius = np.exp(rng.uniform(np.log(5), np.log(120), (_MASKS, 2)))
    boxes = np.hstack([center - radius, center + radius]).clip(0, (WIDTH, HEIGHT) * 2)
    y, x = np.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
    logits = 4 * (1 - x**2 - y**2) + rng.normal(0, 0.5, (_MASKS, _SIDE, _SIDE))
    found = Instances((HEIGHT, WIDTH))
    found.pred_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
    found.scores = torch.as_tensor(rng.random(_MASKS), dtype=torch.float32)
    found.pred_classes = torch.as_tensor(rng.integers(0, 80, _MASKS))
    return found, torch.as_tensor(logits, dtype=torch.float32).sigmoid()


def _in_boxes(instances: Instances, masks: torch.Tensor) -> dict[str, torch.Tensor]:
    return {FIELD: masks}


def _pasted(instances: Instances, masks: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"pred_masks": paste_masks_in_image(masks, instances.pred_boxes, instances.image_size)}


def _process(
    evaluator: Any,
    predicted: list[tuple[Instances, torch.Tensor]],
    with_masks: Callable[[Instances, torch.Tensor], dict[str, torch.Tensor]],
) -> Callable[[], None]:
    def run() -> None:
        evaluator.reset()
        for number, (instances, masks) in enumerate(predicted):
            fields = {**instances.get_fields(), **with_masks(instances, masks)}
            output = {"instances": Instances(instances.image_size, **fields)}
            evaluator.process([{"image_id": number + 1, "height": HEIGHT, "width": WIDTH}], [output])

    return run


def _masks(evaluator: Any) -> list[str]:
    """Of all predictions, in RLE, as the results' file would have them."""
    instances = (item for prediction in evaluator._predictions for item in prediction["instances"])
    return [json.dumps(item["segmentation"], sort_keys=True) for item in instances]
