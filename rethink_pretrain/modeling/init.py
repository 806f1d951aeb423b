"""How the weights of a detector start: as Detectron (Caffe2) does it, as Detectron2, or by MSRA alone.

    part                    "detectron"            "detectron2"          "msra"
    ResNet, VGG convs       XavierFill             MSRAFill              MSRAFill
    box head convs          MSRAFill               MSRAFill              MSRAFill
    box head FC layers      XavierFill             XavierFill            MSRAFill
    mask predictor          MSRAFill               normal 0.001          MSRAFill
    mask convs, deconv      MSRAFill               the same in all three
    keypoint convs, deconv  MSRAFill
    semantic convs          MSRAFill
    FPN convs               XavierFill
    RPN convs               normal 0.01
    class scores            normal 0.01
    box deltas              normal 0.001
    RetinaNet head          normal 0.01, the bias of the scores such that they start at 0.01

XavierFill is uniform with variance 1 / fan-in, MSRAFill normal with variance 2 / fan-out; biases are 0,
scales of norms 1. Read in the code of Detectron, Caffe2 and Detectron2.
"detectron" is the code behind the paper's tables; "msra" is the paper's VGG-16, which starts by MSRA for
ImageNet as for COCO. The host's layers set what the last eight rows say, so that only the first four rows
need code.

The scale of the last norm of a residual block starts at 1 in all. Zero, as in "ImageNet in 1 hour", hurts GN
models trained from scratch (a finding noted in the host's resnet.py).
"""

from collections.abc import Callable

from fvcore.nn.weight_init import c2_msra_fill, c2_xavier_fill
from torch import nn

from ..errors import UserError

INITS = ("detectron", "detectron2", "msra")


def check_init(name: str) -> None:
    """Raises `UserError` unless `name` is one of `INITS`."""
    if name not in INITS:
        raise UserError(f"Unknown RETHINK.INIT {name!r}. Choose from {', '.join(INITS)}.")


def initialize_backbone(backbone: nn.Module, init: str) -> None:
    """Draw the convolutions anew where the MSRAFill of their builder is not what `init` says."""
    check_init(init)
    if init == "detectron":
        _fill(backbone, nn.Conv2d, c2_xavier_fill)


def initialize_box_head(head: nn.Module, init: str) -> None:
    """Draw the fully connected layers where the host's XavierFill is not what `init` says."""
    check_init(init)
    if init == "msra":
        _fill(head, nn.Linear, c2_msra_fill)


def initialize_mask_predictor(predictor: nn.Conv2d, init: str) -> None:
    """Draw the last 1x1 convolution of a mask head where the host's normal 0.001 is not what `init` says."""
    check_init(init)
    if init != "detectron2":
        c2_msra_fill(predictor)


def _fill(module: nn.Module, kind: type[nn.Module], fill: Callable[[nn.Module], None]) -> None:
    for layer in module.modules():
        if isinstance(layer, kind):
            fill(layer)
