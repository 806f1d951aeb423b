"""Backbones under the host's registry."""

from .resnet import (
    add_missing_biases,
    build_resnet,
    build_rethink_resnet_backbone,
    build_rethink_resnet_fpn_backbone,
    build_rethink_retinanet_resnet_fpn_backbone,
)
from .vgg import VGG16, build_rethink_vgg_backbone

__all__ = [
    "VGG16",
    "add_missing_biases",
    "build_resnet",
    "build_rethink_resnet_backbone",
    "build_rethink_resnet_fpn_backbone",
    "build_rethink_retinanet_resnet_fpn_backbone",
    "build_rethink_vgg_backbone",
]
