"""The toy set under the host's catalogs: for detection and keypoints, for stuff, for both."""

from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_sem_seg
from detectron2.data.datasets.coco_panoptic import merge_to_panoptic

from .register import datasets_root, register_coco
from .toy import SPLITS
from .toy_labels import KEYPOINT_FLIP_MAP, KEYPOINT_NAMES, STUFF_NAMES

_STUFF = {"stuff_classes": list(STUFF_NAMES), "ignore_label": 255}
_KEYPOINTS = {"keypoint_names": list(KEYPOINT_NAMES), "keypoint_flip_map": list(KEYPOINT_FLIP_MAP)}


def register_toy(root: str | Path | None = None) -> None:
    """Register the toy set at `root` (datasets_root()/toy), its splits each under three names.

    `toy_train` has objects with masks and keypoints, `toy_train_stuff` semantic labels, `toy_train_panoptic`
    both; `toy_val` likewise.
    """
    root = datasets_root() / "toy" if root is None else Path(root)
    for split in SPLITS:
        json_file, images, labels = root / f"{split}.json", root / split, root / f"sem_seg_{split}"
        register_coco(f"toy_{split}", json_file, images, **_KEYPOINTS)
        if f"toy_{split}_stuff" not in DatasetCatalog.list():
            _register_labels(split, json_file, images, labels)


def _register_labels(split: str, json_file: Path, images: Path, labels: Path) -> None:
    stuff, both = f"toy_{split}_stuff", f"toy_{split}_panoptic"

    def load_stuff() -> list[dict]:
        return load_sem_seg(str(labels), str(images))

    def load_both() -> list[dict]:
        records = DatasetCatalog.get(f"toy_{split}")
        things = MetadataCatalog.get(f"toy_{split}")
        shared = ("thing_classes", "thing_dataset_id_to_contiguous_id")
        MetadataCatalog.get(both).set(**{key: things.get(key) for key in shared})
        return merge_to_panoptic(records, load_stuff())

    files = {"image_root": str(images), "sem_seg_root": str(labels)}
    DatasetCatalog.register(stuff, load_stuff)
    MetadataCatalog.get(stuff).set(evaluator_type="sem_seg", **files, **_STUFF)
    DatasetCatalog.register(both, load_both)
    MetadataCatalog.get(both).set(
        evaluator_type="coco_panoptic_seg", json_file=str(json_file), **files, **_STUFF, **_KEYPOINTS
    )
