"""Pictures sorted into one folder per class, such as ImageNet, under the host's catalogs."""

from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from torchvision.datasets import ImageFolder

from ...errors import UserError, one_line
from .register import datasets_root
from .subsets import digest

NAMES = {"TRAIN_IMAGES": "classes_train", "VAL_IMAGES": "classes_val"}
CLASSIFIER = "BackboneClassifier"  # MODEL.META_ARCHITECTURE


def apply_image_folders(cfg: CfgNode) -> None:
    """Register the folders of `cfg.RETHINK.CLASSIFIER`, and fill in what follows from them.

    That is DATASETS, the number of classes and RETHINK.IMAGES_PER_EPOCH. Every process of a run has to call
    it. Does nothing for a model that is no classifier. Raises `UserError` for folders that cannot be used.
    """
    if cfg.MODEL.META_ARCHITECTURE != CLASSIFIER:
        return
    found = {key: _scan(key, cfg.RETHINK.CLASSIFIER[key]) for key in NAMES}
    train, val = found["TRAIN_IMAGES"], found["VAL_IMAGES"]
    if train.classes != val.classes:
        odd = min({*train.classes} ^ {*val.classes})
        raise UserError(
            f"{train.root} and {val.root} hold different classes: {odd!r} is in one of them alone."
        )
    for key, name in NAMES.items():
        _register(name, found[key])
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (NAMES["TRAIN_IMAGES"],), (NAMES["VAL_IMAGES"],)
    cfg.RETHINK.CLASSIFIER.NUM_CLASSES = len(train.classes)
    cfg.RETHINK.IMAGES_PER_EPOCH = len(train.samples)


def _scan(key: str, path: str) -> ImageFolder:
    """Of a path that is there, or of one below `datasets_root()`."""
    if not path:
        raise UserError(f"RETHINK.CLASSIFIER.{key} names no folder. Give one that has a folder per class.")
    root = Path(path) if Path(path).is_dir() else datasets_root() / path
    try:
        return ImageFolder(str(root))
    except OSError as error:  # also where there is no folder, or none with a picture
        reason = one_line(str(error.strerror or error))
        raise UserError(f"RETHINK.CLASSIFIER.{key} {str(root)!r}: {reason}.{_how_to_make(path)}") from None


def _how_to_make(path: str) -> str:
    if not path.startswith("toy_classes"):
        return " It holds a folder per class with pictures in it."
    output = datasets_root() / "toy_classes"
    return f" Make it: python tools/make_toy_dataset.py --classification --output {output}"


def _register(name: str, folder: ImageFolder) -> None:
    def load() -> list[dict]:
        records = [
            {"file_name": path, "image_id": str(Path(path).relative_to(folder.root)), "label": label}
            for path, label in folder.samples
        ]
        MetadataCatalog.get(name).description = {
            "images": len(records),
            "digest": digest(record["image_id"] for record in records),
            "instances": len(records),
        }
        return records

    DatasetCatalog.pop(name, None)  # the name is ours: in a notebook, the latest config counts
    MetadataCatalog.pop(name, None)
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(evaluator_type="classification", classes=folder.classes)
