"""Weights of one model in another: the share that they fill, and a first convolution of N channels."""

import logging
from collections.abc import Iterable

import torch
from torch import nn

from ..errors import UserError

_FILE_CHANNELS = 3
_RES5_HEAD = "roi_heads.res5."  # where a C4 model keeps the last stage of its backbone (Res5ROIHeads)
# How names in the host's FPN and SimpleFeaturePyramid begin that are not of the backbone below.
FPN_MODULES = ("backbone.fpn_", "backbone.simfp_", "backbone.top_block")

Shapes = dict[str, tuple[int, ...]]


def coverage(model: nn.Module, missing: Iterable[str], shapes: Shapes) -> float:
    """Share of the parameters that a file filled; see `RethinkCheckpointer`. `shapes`: what the file has."""
    missing = set(missing)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    filled = sizes.keys() - missing
    if all(map(_is_backbone, filled)):
        # res5 in the heads is also there to be filled; a file without it is not for a C4 model.
        scope = {name for name in sizes if _is_backbone(name)}
    else:
        parameters = dict(model.named_parameters())
        other_classes = {
            name for name in missing & sizes.keys() if _has_other_classes(name, parameters[name], shapes)
        }
        scope = sizes.keys() - other_classes
    total = sum(sizes[name] for name in scope)
    return sum(sizes[name] for name in filled & scope) / total if total else 0.0


def _is_backbone(name: str) -> bool:
    return name.startswith(("backbone.", _RES5_HEAD)) and not name.startswith(FPN_MODULES)


def _has_other_classes(name: str, parameter: torch.Tensor, shapes: Shapes) -> bool:
    """Whether the file has this parameter of a head with nothing different but the number of outputs.

    The host's name matching leaves such a tensor under a name that is the end of the model's.
    """
    if _is_backbone(name) or name.startswith(FPN_MODULES):
        return False
    found = shapes.get(name) or next((shapes[key] for key in shapes if name.endswith(f".{key}")), None)
    own = tuple(parameter.shape)
    return found is not None and found != own and found[1:] == own[1:]


def first_conv(model: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """Name and module of the convolution that takes the image; None for a model that has none."""
    for prefix in ("backbone.bottom_up.", "backbone.", ""):  # the host's FPN registers its own first
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d) and name.startswith(prefix):
                return name, module
    return None


def inflate_first_conv(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    """Fit the first convolution in `state`, which takes 3 channels, to a model that takes N; whether it did.

    Every new channel gets the mean of the three, times 3 / N: an image whose channels are all equal gives
    the response it gave. The names in `state` need not be the model's: the tensor is known by its shape.
    Raises `UserError` where several have it.
    """
    found = first_conv(model)
    if found is None or found[1].in_channels == _FILE_CHANNELS:
        return False
    name, conv = found[0] + ".weight", found[1]
    out_channels, num_channels, *kernel = conv.weight.shape
    candidates = [
        key for key, value in state.items() if tuple(value.shape) == (out_channels, _FILE_CHANNELS, *kernel)
    ]
    if not candidates or (name in state and name not in candidates):
        return False
    if name in candidates:
        candidates = [name]
    if len(candidates) > 1:
        raise UserError(
            f"Which weight takes the image? {', '.join(candidates)} fit {name}, which takes {num_channels} "
            f"channels. Give it the name {name} in MODEL.WEIGHTS."
        )
    weight = state[candidates[0]]
    mean = weight.mean(dim=1, keepdim=True) * (_FILE_CHANNELS / num_channels)
    state[candidates[0]] = mean.repeat(1, num_channels, 1, 1)
    logging.getLogger(__name__).info(
        "%s: %d channels instead of %d, each with the mean of the three times %d/%d.",
        *(candidates[0], num_channels, _FILE_CHANNELS, _FILE_CHANNELS, num_channels),
    )
    return True
