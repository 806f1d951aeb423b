"""Data sets for the host's loaders."""

from .bad_images import BadImage
from .build import TrainLoader, build_train_loader, ended_workers, ignore_signals, micro_batch_size
from .datasets import (
    CLASSIFIER,
    apply_image_folders,
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
from .mapper import RethinkDatasetMapper, build_augmentations, build_mapper
from .pixel_statistics import list_images_of_dataset, list_images_of_json, measure_pixels, sample_files
from .sampler import STEP, MicroBatchSampler, derive_seed, epoch_order

__all__ = [
    "CLASSIFIER",
    "STEP",
    "BadImage",
    "MicroBatchSampler",
    "RethinkDatasetMapper",
    "TrainLoader",
    "apply_image_folders",
    "apply_own_data",
    "build_augmentations",
    "build_mapper",
    "build_train_loader",
    "check_datasets",
    "check_num_classes",
    "datasets_root",
    "derive_seed",
    "describe_dataset",
    "ended_workers",
    "epoch_order",
    "ignore_signals",
    "list_images_of_dataset",
    "list_images_of_json",
    "measure_pixels",
    "micro_batch_size",
    "read_image",
    "register_coco",
    "register_coco_subset",
    "register_named",
    "register_subset",
    "register_toy",
    "sample_files",
]
