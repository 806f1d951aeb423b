"""A user's own COCO-format folders: names, number of classes and anchors follow from the json files."""

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ...errors import UserError
from ...files import write_text
from .coco_json import read_coco_json
from .register import register_coco

logger = logging.getLogger(__name__)

_SPLITS = {"TRAIN": "own_train", "VAL": "own_val"}
_COCO_KEYPOINTS = 17
_SMALL, _LARGE = 5, 95  # percentiles of the object sizes that the anchors have to suit


def apply_own_data(cfg: CfgNode) -> None:
    """Register `cfg.RETHINK.DATA` as `own_train` and `own_val`, and fill in what follows from it.

    That is DATASETS, the number of classes and keypoints, RETHINK.IMAGES_PER_EPOCH and anchor sizes. Every
    process of a run has to call it. Where a json needs mending, the mended copy is written to OUTPUT_DIR/data
    and used instead. Does nothing where all four paths are "". Raises `UserError` for whatever cannot be
    trained on.
    """
    paths = {key: value for key, value in cfg.RETHINK.DATA.items() if value}
    if not paths:
        return
    missing = [f"RETHINK.DATA.{key}" for key in cfg.RETHINK.DATA if key not in paths]
    if missing:
        raise UserError(f"Your own data needs all four paths; not given: {', '.join(missing)}.")
    documents = {split: _register(cfg, split, name) for split, name in _SPLITS.items()}
    train = documents["TRAIN"]
    _check_same_categories(documents, paths)
    for split, document in documents.items():
        _check_tasks(cfg, document, paths[f"{split}_JSON"])
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("own_train",), ("own_val",)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = len(train["categories"])
    cfg.RETHINK.IMAGES_PER_EPOCH = _count_images(train, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
    if cfg.MODEL.KEYPOINT_ON:
        _set_keypoints(cfg, documents, paths)
    _fit_anchors(cfg, train)


def _register(cfg: CfgNode, split: str, name: str) -> dict:
    path, images = Path(cfg.RETHINK.DATA[f"{split}_JSON"]), Path(cfg.RETHINK.DATA[f"{split}_IMAGES"])
    if not images.is_dir():
        raise UserError(f"RETHINK.DATA.{split}_IMAGES {str(images)!r} is not a folder.")
    document, mends = read_coco_json(path, images)
    first = document["images"][0]["file_name"]
    if not (images / first).is_file():
        raise UserError(
            f"{path} lists {first!r}, which is not in {images}. Is that the folder of its images?"
        )
    if mends:
        logger.warning("%s: %s.", path, ", ".join(f"{count} {mend}" for mend, count in mends.items()))
        path = Path(cfg.OUTPUT_DIR, "data", f"{split.lower()}.json")
        _write_once(path, json.dumps(document))
    DatasetCatalog.pop(name, None)  # the name is ours: in a notebook, the latest config counts
    MetadataCatalog.pop(name, None)
    register_coco(name, path, images, **_keypoint_metadata(document))
    return document


def _write_once(path: Path, text: str) -> None:
    """Every process of a run comes by; the first writes, and the others must not disturb readers."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise UserError(f"Cannot write the mended copy {path}: {error.strerror}.") from None


def _count_images(document: dict, only_with_objects: bool) -> int:
    """Images of one epoch; the host leaves out those without objects, crowds aside."""
    if not only_with_objects:
        return len(document["images"])
    return len({a["image_id"] for a in document["annotations"] if not a["iscrowd"]})


def _check_same_categories(documents: dict[str, dict], paths: dict[str, str]) -> None:
    train, val = (
        {category["id"]: category["name"] for category in documents[split]["categories"]} for split in _SPLITS
    )
    if train != val:
        i = next(i for i in sorted(train.keys() | val.keys()) if train.get(i) != val.get(i))
        raise UserError(
            f"The categories differ: id {i} is {train.get(i, 'missing')!r} in {paths['TRAIN_JSON']} and "
            f"{val.get(i, 'missing')!r} in {paths['VAL_JSON']}. Give both files the same list."
        )


def _check_tasks(cfg: CfgNode, document: dict, path: str) -> None:
    objects = [annotation for annotation in document["annotations"] if not annotation["iscrowd"]]
    if not objects:
        raise UserError(f"{path} has no objects: no annotation with iscrowd 0.")
    for on, field, remedy in (
        (cfg.MODEL.MASK_ON, "segmentation", "MODEL.MASK_ON False for boxes alone"),
        (cfg.MODEL.KEYPOINT_ON, "keypoints", "MODEL.KEYPOINT_ON False"),
    ):
        without = sum(not annotation.get(field) for annotation in objects)
        if on and without:
            raise UserError(f"{path}: {without} of {len(objects)} objects have no {field}. Set {remedy}.")


def _set_keypoints(cfg: CfgNode, documents: dict[str, dict], paths: dict[str, str]) -> None:
    """NUM_KEYPOINTS from the names of the training categories, which all objects have to have."""
    names = _keypoint_metadata(documents["TRAIN"]).get("keypoint_names")
    if names is None:
        raise UserError(f'{paths["TRAIN_JSON"]}: no category lists its "keypoints" by name.')
    for split, document in documents.items():
        counts = {len(a["keypoints"]) / 3 for a in document["annotations"] if a.get("keypoints")}
        if counts != {len(names)}:
            raise UserError(
                f"{paths[f'{split}_JSON']}: objects have {', '.join(f'{c:g}' for c in sorted(counts))} "
                f"keypoints (x, y, v), but the category names {len(names)}."
            )
    cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = len(names)
    if len(cfg.TEST.KEYPOINT_OKS_SIGMAS or range(_COCO_KEYPOINTS)) != len(names):
        raise UserError(
            f"Keypoints are evaluated by COCO's {_COCO_KEYPOINTS} sigmas or your own: set "
            f"TEST.KEYPOINT_OKS_SIGMAS to {len(names)} numbers, one per keypoint."
        )


def _keypoint_metadata(document: dict) -> dict:
    """Names and left-right pairs, from the first category that has them."""
    names = next((c["keypoints"] for c in document["categories"] if c.get("keypoints")), None)
    if names is None:
        return {}
    pairs = [(name, name.replace("left_", "right_", 1)) for name in names if "left_" in name]
    return {"keypoint_names": names, "keypoint_flip_map": [pair for pair in pairs if pair[1] in names]}


def _fit_anchors(cfg: CfgNode, document: dict) -> None:
    sizes = cfg.MODEL.ANCHOR_GENERATOR.SIZES
    objects = object_sizes(document, max(cfg.INPUT.MIN_SIZE_TRAIN), cfg.INPUT.MAX_SIZE_TRAIN)
    flat = [size for level in sizes for size in level]
    scale = fit_anchor_scale(objects, min(flat), max(flat))
    if scale != 1:
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[size * scale for size in level] for level in sizes]
    logger.info(
        "Objects measure %.0f to %.0f px (%dth to %dth percentile) as the model sees them: "
        "anchor sizes are %s%s.",
        *np.percentile(objects, (_SMALL, _LARGE)),
        *(_SMALL, _LARGE),
        f"{scale:g} times the config's: " if scale != 1 else "the config's, ",
        cfg.MODEL.ANCHOR_GENERATOR.SIZES,
    )


def object_sizes(document: dict, short_side: int, long_side: int) -> list[float]:
    """Square roots of box areas, in px of images resized to `short_side`, at most `long_side` long."""
    scales = {}
    for image in document["images"]:
        sides = sorted((image["width"], image["height"]))
        scales[image["id"]] = min(short_side / sides[0], long_side / sides[1])
    return [
        math.sqrt(annotation["bbox"][2] * annotation["bbox"][3]) * scales[annotation["image_id"]]
        for annotation in document["annotations"]
        if not annotation["iscrowd"]
    ]


def fit_anchor_scale(sizes_px: Sequence[float], smallest_anchor: float, largest_anchor: float) -> float:
    """The power of two, 1/8 to 8, for all anchor sizes that suits objects of `sizes_px` (> 0).

    Anchors suit objects from half the smallest one on: an anchor of s over a centred object of s / 2 has an
    IoU of 1/4, and one of s / sqrt(2) has 1/2. They are halved until the 5th percentile of the objects is
    suited, and doubled where the 95th is beyond twice the largest and the 5th stays suited. A rule of ours:
    the paper has COCO alone.
    """
    small, large = (float(p) for p in np.percentile(sizes_px, (_SMALL, _LARGE)))
    most = math.floor(math.log2(2 * small / smallest_anchor))  # the largest power that still suits `small`
    wanted = max(0, math.ceil(math.log2(large / (2 * largest_anchor))))
    return 2.0 ** min(max(min(most, wanted), -3), 3)
