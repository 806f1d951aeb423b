"""How the weights of a detector start, as Detectron (Caffe2) or as Detectron2 does it.

The two agree on FPN, RPN, box head and mask convolutions (PAPER 1.3 of the specification: XavierFill,
normal 0.01, MSRAFill); the host's layers set those. They differ in two places, and only those are here:

    part              "detectron" (the paper's code)      "detectron2" (the host)
    ResNet convs      XavierFill: uniform, fan-in         MSRA: normal, fan-out
    mask predictor    MSRAFill: normal, fan-out           normal, std 0.001

The scale of the last norm of a residual block starts at 1 in both. Zero, as in "ImageNet in 1 hour",
hurts GN models trained from scratch (a finding noted in the host's resnet.py).
"""

from fvcore.nn.weight_init import c2_msra_fill, c2_xavier_fill
from torch import nn

from ..errors import UserError

INITS = ("detectron", "detectron2")


def check_init(name: str) -> None:
    """Raises `UserError` unless `name` is one of `INITS`."""
    if name not in INITS:
        raise UserError(f"Unknown RETHINK.INIT {name!r}. Choose from {', '.join(INITS)}.")


def initialize_backbone(backbone: nn.Module, init: str) -> None:
    """Draw the weights of every convolution anew, biases 0; the host has set "detectron2"'s."""
    check_init(init)
    if init == "detectron":
        for module in backbone.modules():
            if isinstance(module, nn.Conv2d):
                c2_xavier_fill(module)


def initialize_mask_predictor(predictor: nn.Conv2d, init: str) -> None:
    """Draw the weights of the last 1x1 convolution of a mask head; the host has set "detectron2"'s."""
    check_init(init)
    if init == "detectron":
        c2_msra_fill(predictor)
