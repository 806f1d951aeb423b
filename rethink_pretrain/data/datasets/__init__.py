"""Data sets: registration, subsets, a user's own files and the synthetic toy set."""

from .image_folders import CLASSIFIER, apply_image_folders
from .own import apply_own_data
from .register import (
    check_datasets,
    check_num_classes,
    datasets_root,
    describe_dataset,
    register_coco,
)
from .register_subset import register_coco_subset, register_named, register_subset
from .toy_sets import register_toy

__all__ = [
    "CLASSIFIER",
    "apply_image_folders",
    "apply_own_data",
    "check_datasets",
    "check_num_classes",
    "datasets_root",
    "describe_dataset",
    "register_coco",
    "register_coco_subset",
    "register_named",
    "register_subset",
    "register_toy",
]
