"""Data sets under the host's catalogs: explicit, repeatable calls, never at import."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json

from ...errors import UserError

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
    DatasetCatalog.register(name, lambda: _load_coco(name, **files))
    MetadataCatalog.get(name).set(evaluator_type="coco", **files, **metadata)


def register_toy(root: str | Path | None = None) -> None:
    """Register the toy set at `root` (datasets_root()/toy) as `toy_train` and `toy_val`."""
    root = datasets_root() / "toy" if root is None else Path(root)
    for split in ("train", "val"):
        register_coco(f"toy_{split}", root / f"{split}.json", root / split)


def check_datasets(names: Iterable[str]) -> None:
    """Raises `UserError` where a name is not registered or its files are not on disk; reads none of them."""
    missing: dict[str, list[str]] = {}
    for name in names:
        if name not in DatasetCatalog.list():
            raise UserError(
                f"Unknown data set {name!r}. Registered: {', '.join(sorted(DatasetCatalog.list()))}."
            )
        metadata = MetadataCatalog.get(name)
        paths = [metadata.get(key) for key in ("json_file", "image_root", "dirname")]
        absent = [path for path in paths if path and not Path(path).exists()]
        if absent:
            missing[name] = absent
    if missing:
        paths = ", ".join(path for absent in missing.values() for path in absent)
        raise UserError(f"Missing for {', '.join(missing)}: {paths}. {_how_to_get(next(iter(missing)))}")


def check_num_classes(names: Iterable[str], num_classes: int) -> None:
    """Raises `UserError` unless each of the loaded sets has `num_classes` categories."""
    for name in names:
        categories = MetadataCatalog.get(name).get("thing_classes")
        if categories is not None and len(categories) != num_classes:
            raise UserError(
                f"MODEL.ROI_HEADS.NUM_CLASSES is {num_classes}, but data set {name!r} has {len(categories)} "
                f"categories ({', '.join(categories[:10])}{', ...' if len(categories) > 10 else ''}). "
                f"Set NUM_CLASSES to {len(categories)}."
            )


def _load_coco(name: str, json_file: str, image_root: str) -> list[dict]:
    try:
        return load_coco_json(json_file, image_root, name)
    except KeyError as error:
        # The host's words for an annotation whose category the file does not list.
        if "category_id" not in str(error):
            raise
        known = ", ".join(MetadataCatalog.get(name).get("thing_classes", []))
        raise UserError(f"{json_file}: {error.args[0]} Its categories: {known}.") from None


def _how_to_get(name: str) -> str:
    if name.startswith("toy"):
        return f"Make it: python tools/make_toy_dataset.py --output {datasets_root() / 'toy'}"
    where = f"Data sets are looked for under {str(datasets_root())!r}; set DETECTRON2_DATASETS to change that"
    if name.startswith("coco"):
        get = "get COCO 2017 from cocodataset.org (see datasets/README.md)"
    else:
        get = "see datasets/README.md for the expected folders"
    return f"{where}, {get}, {_TOY_HELP}."
