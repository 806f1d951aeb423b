"""A COCO document as the host's records, from memory: the host's own loader would read the file again."""

import logging
import os
from collections import defaultdict
from pathlib import Path

import pycocotools.mask as mask_util
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode

from ...errors import UserError

logger = logging.getLogger(__name__)

_KEYS = ("iscrowd", "bbox", "keypoints")  # that a record takes as they are


def records_of(document: dict, image_root: str | Path, dataset_name: str) -> list[dict]:
    """What the host's `load_coco_json` makes of `document`, which has to have passed `check_document`.

    Images by id, categories from 0 in the order of their ids. Sets `thing_classes` and
    `thing_dataset_id_to_contiguous_id` of the metadata; raises `UserError` where they are known otherwise.
    The document stays as it is, and shares its boxes and polygons with the records.
    """
    categories = sorted(document["categories"], key=lambda category: category["id"])
    classes = {category["id"]: k for k, category in enumerate(categories)}
    _set_metadata(
        dataset_name,
        thing_classes=[category["name"] for category in categories],
        thing_dataset_id_to_contiguous_id=classes,
    )
    annotations = defaultdict(list)
    for annotation in document["annotations"]:
        annotations[annotation["image_id"]].append(annotation)
    images = sorted(document["images"], key=lambda image: image["id"])
    ret = [
        {
            "file_name": os.path.join(image_root, image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": list(filter(None, (_object_of(a, classes) for a in annotations[image["id"]]))),
        }
        for image in images
    ]
    listed = sum(len(annotations[image["id"]]) for image in images)
    _log(dataset_name, ret, len(document["annotations"]), listed)
    return ret


def _object_of(annotation: dict, classes: dict[int, int]) -> dict | None:
    """The host's form of `annotation`; None where it has polygons, but none of three points."""
    ret = {key: annotation[key] for key in _KEYS if annotation.get(key) is not None}
    segmentation = annotation.get("segmentation")
    if segmentation:
        if isinstance(segmentation, list):
            segmentation = [polygon for polygon in segmentation if len(polygon) >= 6]
            if not segmentation:
                return None
        elif isinstance(segmentation["counts"], list):
            segmentation = mask_util.frPyObjects(segmentation, *segmentation["size"])
        ret["segmentation"] = segmentation
    if ret.get("keypoints"):
        # Indices of pixels become coordinates, whose pixels have their centres at 0.5.
        ret["keypoints"] = [v if i % 3 == 2 else v + 0.5 for i, v in enumerate(ret["keypoints"])]
    ret["bbox_mode"] = BoxMode.XYWH_ABS
    ret["category_id"] = classes[annotation["category_id"]]
    return ret


def _set_metadata(dataset_name: str, **wanted: object) -> None:
    metadata = MetadataCatalog.get(dataset_name)
    for key, value in wanted.items():
        if metadata.get(key, value) != value:
            raise UserError(
                f"The categories of data set {dataset_name!r} are not those that it is known with "
                f"({metadata.get('json_file')}). Register the file under another name."
            )
        metadata.set(**{key: value})


def _log(dataset_name: str, records: list[dict], total: int, listed: int) -> None:
    logger.info("%s: %d images in COCO's format.", dataset_name, len(records))
    if listed < total:
        logger.warning("%s: %d annotations of images not in the file.", dataset_name, total - listed)
    left_out = listed - sum(len(record["annotations"]) for record in records)
    if left_out:
        logger.warning("%s: %d objects without a valid polygon are left out.", dataset_name, left_out)
