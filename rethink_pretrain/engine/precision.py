"""bf16 arithmetic by autocast: where it holds, and what stays fp32 inside of it."""

import logging
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling.meta_arch.retinanet import RetinaNetHead
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from torch import nn

from .changes import written_keys

logger = logging.getLogger(__name__)

# Their outputs are logits and box deltas, from which losses, decoded boxes and NMS are computed.
_HEADS = (StandardRPNHead, RetinaNetHead, FastRCNNOutputLayers)
# The same of the mask, keypoint and segmentation heads, and of the classifier.
_PREDICTORS = ("predictor", "score_lowres", "linear")

_KNOWN = ("fp32", "bf16")


def settle_precision(cfg: CfgNode, device: str, *, goes_on: bool = False) -> None:
    """In the place of "auto", bf16 where `device` has it; of a run that `goes_on`, what OUTPUT_DIR tells."""
    if cfg.RETHINK.SPEED.PRECISION != "auto":
        return
    if goes_on:  # one that tells none is older than the key
        before = written_keys(cfg.OUTPUT_DIR).get("RETHINK.SPEED.PRECISION")
        cfg.RETHINK.SPEED.PRECISION = before if before in _KNOWN else "fp32"
    else:
        cfg.RETHINK.SPEED.PRECISION = _KNOWN[has_bf16(torch.device(device))]


def has_bf16(device: torch.device) -> bool:
    """Whether `device` has bf16 instructions; without them bf16 takes several times as long as fp32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe)() for probe in probes if hasattr(torch.cpu, probe))


def autocast(device: torch.device, precision: str, *, fp16: bool = False) -> torch.autocast:
    """The context of a forward pass: "bf16" on `device`, with `fp16` the host's AMP (CUDA alone), or neither.

    Weights stay fp32, and so do their gradients: bf16 has fp32's range, so nothing has to be scaled.
    """
    assert precision in _KNOWN, precision
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return torch.autocast("cuda", dtype=torch.float16, enabled=fp16)


def prepare_for(precision: str, model: nn.Module) -> nn.Module:
    """`model` itself, which for "bf16" hands on logits as fp32 and keeps RoIs fp32.

    So losses, softmax and boxes are computed in fp32, of logits that the last layer has rounded to bf16. The
    host rounds RoIs to the type of the features: in bf16 to multiples of 4 px beyond 512 px.
    """
    if precision != "bf16":
        return model
    device = next(model.parameters()).device
    if not has_bf16(device):
        logger.warning("This %s has no bf16 instructions: fp32 is faster here.", device.type.upper())
    for name, module in model.named_modules():
        if isinstance(module, ROIPooler):
            module.register_forward_pre_hook(_inputs_to_fp32)
        elif isinstance(module, _HEADS) or name.rpartition(".")[2] in _PREDICTORS:
            module.register_forward_hook(_outputs_to_fp32)
    return model


def _inputs_to_fp32(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return _to_fp32(inputs)


def _outputs_to_fp32(module: nn.Module, inputs: tuple[Any, ...], outputs: Any) -> Any:
    return _to_fp32(outputs)


def _to_fp32(value: Any) -> Any:
    """Tensors of bf16 in tuples and lists, to any depth; everything else is handed through."""
    if isinstance(value, (tuple, list)):
        return type(value)(_to_fp32(item) for item in value)
    is_bf16 = isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16
    return value.float() if is_bf16 else value
