"""Data sets for the host's loaders."""

from .datasets import check_datasets, check_num_classes, datasets_root, register_coco, register_toy

__all__ = ["check_datasets", "check_num_classes", "datasets_root", "register_coco", "register_toy"]
