"""Data sets for the host's loaders."""

from .datasets import (
    apply_own_data,
    check_datasets,
    check_num_classes,
    datasets_root,
    describe_dataset,
    register_coco,
    register_coco_subset,
    register_named,
    register_subset,
    register_toy,
)
from .images import read_image
from .mapper import RethinkDatasetMapper, build_augmentations
from .pixel_statistics import list_images_of_dataset, list_images_of_json, measure_pixels, sample_files

__all__ = [
    "RethinkDatasetMapper",
    "apply_own_data",
    "build_augmentations",
    "check_datasets",
    "check_num_classes",
    "datasets_root",
    "describe_dataset",
    "list_images_of_dataset",
    "list_images_of_json",
    "measure_pixels",
    "read_image",
    "register_coco",
    "register_coco_subset",
    "register_named",
    "register_subset",
    "register_toy",
    "sample_files",
]
