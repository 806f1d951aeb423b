"""Backbones under the host's registry."""

from .resnet import (
    add_missing_biases,
    build_resnet,
    build_rethink_resnet_backbone,
    build_rethink_resnet_fpn_backbone,
    build_rethink_retinanet_resnet_fpn_backbone,
)

__all__ = [
    "add_missing_biases",
    "build_resnet",
    "build_rethink_resnet_backbone",
    "build_rethink_resnet_fpn_backbone",
    "build_rethink_retinanet_resnet_fpn_backbone",
]
