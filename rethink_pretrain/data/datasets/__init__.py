"""Data sets: registration, subsets, a user's own files and the synthetic toy set."""

from .own import apply_own_data
from .register import (
    check_datasets,
    check_num_classes,
    datasets_root,
    describe_dataset,
    register_coco,
)
from .register_subset import base_name, register_coco_subset, register_subset
from .toy_sets import register_toy

__all__ = [
    "apply_own_data",
    "base_name",
    "check_datasets",
    "check_num_classes",
    "datasets_root",
    "describe_dataset",
    "register_coco",
    "register_coco_subset",
    "register_subset",
    "register_toy",
]
