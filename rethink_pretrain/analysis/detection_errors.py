"""What kinds of mistakes a detector makes: false positives and misses by the definitions of TIDE.

Boxes are matched as COCO's evaluation matches them at an IoU of 0.5: within a category, the highest score
first, each to the free object of the largest IoU; a prediction that only meets a crowd of its category is
left out. What is not matched has one kind, and where several fit, the first of

    localisation    an object of its category is met with an IoU of 0.1 to 0.5
    classification  an object of another category is met with 0.5 or more
    duplicate       an object of its category is met with 0.5 or more, and matched to a higher score
    background      no object is met with more than 0.1
    both            the rest: an object of another category is met with 0.1 to 0.5

A `missed` object is one that is neither matched nor met by an error of localisation or classification.
(Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020; the order is that
of their code.)
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pycocotools import mask as mask_util

from ..errors import UserError
from ..files import read_json

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
FOREGROUND_IOU, BACKGROUND_IOU = 0.5, 0.1


class Error(NamedTuple):
    """One mistake, as dicts of COCO's formats."""

    kind: str
    prediction: dict | None  # None for a missed object
    ground_truth: dict | None  # the object that it is about; None for background and both

    @property
    def image_id(self) -> int:
        """Where it is."""
        return (self.prediction or self.ground_truth)["image_id"]

    @property
    def category_id(self) -> int:
        """Of the prediction, and of a missed object."""
        return (self.prediction or self.ground_truth)["category_id"]


class ImageResult(NamedTuple):
    """What became of the predictions and objects of one image; crowds are no objects."""

    correct: list[dict]  # predictions
    errors: list[Error]
    num_objects: int

    @property
    def f1(self) -> float:
        """F1 score, 0 to 1: of recall and precision; 1 where there is nothing and nothing is predicted."""
        wrong = sum(error.prediction is not None for error in self.errors)
        total = len(self.correct) + wrong + self.num_objects
        return 2 * len(self.correct) / total if total else 1.0


def read_results(path: Path) -> list[dict]:
    """A COCO results json of boxes. Raises `UserError` for anything else."""
    results = read_json(path)
    needed = {"image_id", "category_id", "bbox", "score"}
    if not isinstance(results, list) or not all(isinstance(r, dict) and needed <= r.keys() for r in results):
        raise UserError(
            f"{path} is no COCO results file: a list of objects with {', '.join(sorted(needed))} is needed."
        )
    return results


def find_errors(dataset: dict, results: Sequence[dict], *, min_score: float = 0.5) -> dict[int, ImageResult]:
    """Image id -> what became of it, for all images of `dataset`, in the json's order.

    `dataset` is the content of a COCO json, `results` a COCO results list with boxes (x, y, width, height in
    px); those below `min_score` are left out. The 100 predictions per image and category at which COCO stops
    are no limit here. Raises `UserError` for images and categories that the json does not list.
    """
    objects, predictions = defaultdict(list), defaultdict(list)
    for annotation in dataset["annotations"]:
        objects[annotation["image_id"]].append(annotation)
    for result in results:
        if result["score"] >= min_score:
            predictions[result["image_id"]].append(result)
    ids = [image["id"] for image in dataset["images"]]
    _check_known("images", predictions, ids)
    categories = (category["id"] for category in dataset["categories"])
    _check_known("categories", (result["category_id"] for result in results), categories)
    return {image_id: judge_image(objects[image_id], predictions[image_id]) for image_id in ids}


def _check_known(kind: str, found: Iterable[int], known: Iterable[int]) -> None:
    if unknown := sorted(set(found) - set(known)):
        raise UserError(
            f"{len(unknown)} {kind} of the results, such as {unknown[0]}, are not in the json. "
            "Are they of the same data set?"
        )


def judge_image(objects: Sequence[dict], predictions: Sequence[dict]) -> ImageResult:
    """As `find_errors`, for the objects and crowds of one image and all predictions given."""
    # Python's sort keeps the order of equal scores, as COCO's does.
    predictions = sorted(predictions, key=lambda result: -result["score"])
    crowds = [annotation for annotation in objects if annotation.get("iscrowd")]
    objects = [annotation for annotation in objects if not annotation.get("iscrowd")]
    iou, same = _iou(predictions, objects), _same_category(predictions, objects)
    in_crowd = (_iou(predictions, crowds, crowd=True) >= FOREGROUND_IOU) & _same_category(predictions, crowds)
    matched, wrong = {}, []  # matched: index of an object -> index of its prediction
    for p in range(len(predictions)):
        # A later object wins a tie, as in COCO's loop.
        free = [(iou[p, o], o) for o in range(len(objects)) if same[p, o] and o not in matched]
        if free and max(free)[0] >= FOREGROUND_IOU:
            matched[max(free)[1]] = p
        elif not in_crowd[p].any():
            wrong.append(p)
    errors, mendable = [], set(matched)
    for p in wrong:
        kind, o = _kind(iou[p], same[p])
        errors.append(Error(kind, predictions[p], None if o is None else objects[o]))
        if kind in ("localisation", "classification"):
            mendable.add(o)
    errors += [Error("missed", None, item) for o, item in enumerate(objects) if o not in mendable]
    return ImageResult([predictions[p] for p in sorted(matched.values())], errors, len(objects))


def count_errors(results: dict[int, ImageResult]) -> dict[int, Counter]:
    """Category id -> how many of each kind, of "correct" and of "objects" there are in all images.

    A false positive counts for the category that it predicts. Categories without any of it are absent.
    """
    ret: dict[int, Counter] = defaultdict(Counter)
    for result in results.values():
        for prediction in result.correct:
            ret[prediction["category_id"]]["correct"] += 1
        for error in result.errors:
            ret[error.category_id][error.kind] += 1
    return dict(ret)


def _kind(iou: np.ndarray, same: np.ndarray) -> tuple[str, int | None]:
    """Kind of a false positive and index of the object that it is about, by IoU with each object, (O,)."""
    if not len(iou):
        return "background", None
    own, other = np.where(same, iou, 0), np.where(same, 0, iou)
    if BACKGROUND_IOU <= own.max() < FOREGROUND_IOU:
        return "localisation", int(own.argmax())
    if other.max() >= FOREGROUND_IOU:
        return "classification", int(other.argmax())
    if own.max() >= FOREGROUND_IOU:  # or it would have been matched
        return "duplicate", int(own.argmax())
    return ("background" if iou.max() <= BACKGROUND_IOU else "both"), None


def _iou(predictions: Sequence[dict], objects: Sequence[dict], crowd: bool = False) -> np.ndarray:
    """IoU of boxes, (P, O); with a crowd, the share of the prediction that is inside."""
    if not predictions or not objects:
        return np.zeros((len(predictions), len(objects)))
    boxes = (np.array([item["bbox"] for item in items], dtype=float) for items in (predictions, objects))
    return mask_util.iou(*boxes, [int(crowd)] * len(objects))


def _same_category(predictions: Sequence[dict], objects: Sequence[dict]) -> np.ndarray:
    """Boolean (P, O)."""
    ids = [np.array([item["category_id"] for item in items], dtype=int) for items in (predictions, objects)]
    return ids[0][:, None] == ids[1]
