"""Data sets under the host's catalogs: explicit, repeatable calls, never at import."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import (
    load_sem_seg,
    register_coco_instances,
    register_coco_panoptic_separated,
)
from detectron2.data.datasets.coco_panoptic import merge_to_panoptic

from ...errors import UserError
from ...garbage import without_collection
from .coco_checks import check_document, how_to_mend
from .coco_json import read_coco_json, read_lists
from .records import records_of
from .subsets import digest

_TOY_HELP = "or train on the toy set instead (`make demo`, or tools/make_toy_dataset.py and configs/toy/)"


def datasets_root() -> Path:
    """The folder that holds coco/, toy/ and the rest: $DETECTRON2_DATASETS, by default `datasets`."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets"))


def register_coco(name: str, json_file: str | Path, image_root: str | Path, **metadata: Any) -> None:
    """Register a COCO-format detection set as `name`, as the host's `register_coco_instances` does.

    A second call with the same files does nothing; with other files it raises `UserError`, because runs
    would then mean different data by one name. `metadata` joins the host's metadata of the set.
    """
    files = {"json_file": str(json_file), "image_root": str(image_root)}
    if name in DatasetCatalog.list():
        known = MetadataCatalog.get(name)
        if any(known.get(key) != value for key, value in files.items()):
            raise UserError(
                f"Data set {name!r} is already registered with {known.get('json_file')}. Choose another name."
            )
        return
    DatasetCatalog.register(name, lambda: _load_described(name, **files))
    MetadataCatalog.get(name).set(evaluator_type="coco", **files, **metadata)


def check_at_loading(name: str) -> None:
    """Where the host's COCO loader would load `name`, which it does unchecked, let ours do it.

    The metadata stay as they are. Sets of other formats, and loaders of the user's own, are left alone.
    """
    if name not in DatasetCatalog.list():
        return
    load = _INSTEAD_OF_HOST.get(getattr(DatasetCatalog[name], "__module__", ""))
    metadata = MetadataCatalog.get(name).as_dict()
    needed = ("json_file", "image_root") if load is load_coco else ("json_file", "image_root", "sem_seg_root")
    if load is None or not all(key in metadata for key in needed):
        return
    files = {key: metadata[key] for key in needed}
    DatasetCatalog.pop(name)
    DatasetCatalog.register(name, lambda: load(name, **files))


def check_datasets(names: Iterable[str]) -> None:
    """Raises `UserError` where a name is not registered or its files are not on disk; reads none of them."""
    missing: dict[str, list[str]] = {}
    for name in names:
        if name not in DatasetCatalog.list():
            raise UserError(
                f"Unknown data set {name!r}.{_suggest_subset(name)} "
                f"Registered: {', '.join(sorted(DatasetCatalog.list()))}."
            )
        metadata = MetadataCatalog.get(name)
        paths = [metadata.get(key) for key in ("json_file", "image_root", "sem_seg_root", "dirname")]
        absent = [path for path in paths if path and not Path(path).exists()]
        if absent:
            missing[name] = absent
    if missing:
        # Subsets of one set have its files.
        paths = ", ".join(dict.fromkeys(path for absent in missing.values() for path in absent))
        raise UserError(f"Missing for {', '.join(missing)}: {paths}. {_how_to_get(next(iter(missing)))}")


def check_num_classes(names: Iterable[str], num_classes: int, *, key: str = "MODEL.ROI_HEADS") -> None:
    """Raises `UserError` unless each of the loaded sets has `num_classes` categories.

    `key` is the config node of the head; the classes of MODEL.SEM_SEG_HEAD are the sets' stuff classes.
    """
    kind = "stuff_classes" if key == "MODEL.SEM_SEG_HEAD" else "thing_classes"
    for name in names:
        categories = MetadataCatalog.get(name).get(kind)
        if categories is not None and len(categories) != num_classes:
            raise UserError(
                f"{key}.NUM_CLASSES is {num_classes}, but data set {name!r} has {len(categories)} "
                f"categories ({', '.join(categories[:10])}{', ...' if len(categories) > 10 else ''}). "
                f"Set NUM_CLASSES to {len(categories)}."
            )


def describe_dataset(name: str) -> dict[str, Any]:
    """What tells one data set from another: name, and once it is loaded images, digest of ids, instances.

    Instances are objects without crowds. The host's own sets have their name alone, which says it all.
    """
    return {"name": name, **MetadataCatalog.get(name).get("description", {})}


def note_description(name: str, records: list[dict]) -> None:
    """Keep what `describe_dataset` tells of the set that has just been loaded."""
    objects = (a for record in records for a in record.get("annotations", ()))
    MetadataCatalog.get(name).description = {
        "images": len(records),
        "digest": digest(image_id(record) for record in records),
        "instances": sum(not a.get("iscrowd", 0) for a in objects),
    }


def image_id(record: dict) -> int | str:
    """What tells images apart on every machine; sets for semantic segmentation have no image ids."""
    return record["image_id"] if "image_id" in record else Path(record["file_name"]).name


def _suggest_subset(name: str) -> str:
    """For `coco_2017_train_10k`, where `coco_2017_train` is registered."""
    match = re.fullmatch(r"(?P<base>.+)_(?P<size>\d+(\.\d+)?[k%]?)", name)
    if match is None or match["base"] not in DatasetCatalog.list():
        return ""
    return f" A subset is written {match['base']}@{match['size']}."


def _load_described(name: str, json_file: str, image_root: str) -> list[dict]:
    records = load_coco(name, json_file, image_root)
    note_description(name, records)
    return records


def load_coco(name: str, json_file: str, image_root: str) -> list[dict]:
    """What the host's `load_coco_json` gives. Raises `UserError` for what could hurt a run, in one line."""
    with without_collection():
        document = read_lists(Path(json_file), optional=("annotations",))  # test sets have none
        try:
            check_document(document, Path(json_file), image_root)
        except UserError:
            _suggest_mending(json_file, image_root)
            raise
        return records_of(document, image_root, name)


def _load_panoptic(name: str, json_file: str, image_root: str, sem_seg_root: str) -> list[dict]:
    """What the host's "separated" panoptic sets give: objects, and labels of stuff."""
    return merge_to_panoptic(load_coco(name, json_file, image_root), load_sem_seg(sem_seg_root, image_root))


# Module of a loader of the host -> ours.
_INSTEAD_OF_HOST = {
    register_coco_instances.__module__: load_coco,
    register_coco_panoptic_separated.__module__: _load_panoptic,
}


def _suggest_mending(json_file: str, image_root: str) -> None:
    """Raises `UserError` where RETHINK.DATA would mend the file, or knows more about what is wrong."""
    _, mends = read_coco_json(Path(json_file), Path(image_root))
    if mends:
        counted = ", ".join(f"{count} {mend}" for mend, count in mends.items())
        raise UserError(
            f"{json_file} needs mending: {counted}. The four keys of RETHINK.DATA do that (see "
            "datasets/README.md), or: "
            f"{how_to_mend(Path(json_file), image_root)}"
        )


def _how_to_get(name: str) -> str:
    if name.startswith("toy"):
        return f"Make it: python tools/make_toy_dataset.py --output {datasets_root() / 'toy'}"
    where = f"Data sets are looked for under {str(datasets_root())!r}; set DETECTRON2_DATASETS to change that"
    if name.startswith(("coco", "keypoints_coco")):
        get = "get COCO 2017 from cocodataset.org (see datasets/README.md)"
    elif name.startswith("voc"):
        get = "get PASCAL VOC from its site as VOC2007/ and VOC2012/ (see datasets/README.md)"
    else:
        get = "see datasets/README.md for the expected folders"
    return f"{where}, {get}, {_TOY_HELP}."
