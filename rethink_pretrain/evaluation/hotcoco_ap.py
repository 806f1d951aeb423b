"""COCO's AP by hotcoco, an optional package whose numbers are believed where they prove equal."""

import contextlib
import importlib
import io
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import UserError

TOLERANCE = 1e-9  # of every number between 0 and 1
NUM_SAMPLED = 100  # images on which both are computed


def import_hotcoco() -> ModuleType:
    """The package. Raises `UserError` where it is missing."""
    try:
        return importlib.import_module("hotcoco")
    except ImportError as error:
        raise UserError(
            f"RETHINK.SPEED.COCO_EVAL is 'hotcoco', which cannot be imported ({error}). "
            "`pip install hotcoco`, or set it to 'faster-coco-eval'."
        ) from None


def run_hotcoco(ground_truth: Any, results: list[dict], params: Any) -> Any:
    """hotcoco's COCOeval of non-empty `results`, with `stats` and `eval`.

    `ground_truth` is a hotcoco.COCO; `params` are those of a COCOeval of pycocotools' interface.
    """
    hotcoco = import_hotcoco()
    found = ground_truth.load_res(_as_input(results, params.iouType))
    coco_eval = hotcoco.COCOeval(ground_truth, found, params.iouType)
    own = coco_eval.params
    own.cat_ids = [int(i) for i in params.catIds]
    own.img_ids = [int(i) for i in params.imgIds]
    own.max_dets = [int(n) for n in params.maxDets]
    if params.iouType == "keypoints":
        own.kpt_oks_sigmas = [float(sigma) for sigma in params.kpt_oks_sigmas]
    coco_eval.params = own
    coco_eval.evaluate()
    coco_eval.accumulate()
    with contextlib.redirect_stdout(io.StringIO()):
        coco_eval.summarize()
    return coco_eval


def _as_input(results: list[dict], task: str) -> np.ndarray | list[dict]:
    """What its load_res reads fastest: of boxes an array (N, 7), of masks no boxes, whose area it would take.

    Columns: image id, x, y, width, height, score, category id.
    """
    if task == "bbox":
        rows = [(r["image_id"], *r["bbox"], r["score"], r["category_id"]) for r in results]
        return np.array(rows, dtype=np.float64)
    if task == "segm":
        keys = ("image_id", "category_id", "segmentation", "score")
        return [{key: result[key] for key in keys} for result in results]
    return results


def sample(image_ids: Sequence[int]) -> list[int]:
    """At most `NUM_SAMPLED` of them, evenly spread, for the comparison."""
    chosen = np.unique(np.linspace(0, len(image_ids) - 1, NUM_SAMPLED).astype(int)) if image_ids else []
    return [image_ids[i] for i in chosen]


def agree(stats: Sequence[float], others: Sequence[float]) -> bool:
    """Whether two lists of COCO's summary numbers are equal to `TOLERANCE`."""
    return len(stats) == len(others) and bool(np.allclose(stats, others, rtol=0, atol=TOLERANCE))
