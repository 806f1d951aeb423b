"""Model parts under the host's registries. Importing this package registers them."""

from . import cascade, classifier, heads, init, keypoint_head, retinanet, rpn, sem_seg
from .backbone import build_resnet

__all__ = [
    "build_resnet",
    "cascade",
    "classifier",
    "heads",
    "init",
    "keypoint_head",
    "retinanet",
    "rpn",
    "sem_seg",
]
