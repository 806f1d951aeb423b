"""The parts of a detector by the names of its modules, and a table of what each part holds."""

from collections.abc import Collection, Iterator

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...checkpoint import FPN_MODULES

BACKBONE, FPN = "backbone", "fpn"

_NORM_LABELS = {
    "GroupNorm": "GN",
    "FusedGroupNorm": "GN",
    "LayerNorm": "LN",
    "FrozenBatchNorm2d": "FrozenBN",
    "BatchNorm2d": "BN",
}


def area_of(name: str) -> str:
    """The area of a module or parameter: "backbone", "fpn", "rpn", "box head", "mask head" and the like."""
    top, _, rest = name.partition(".")
    if top == "backbone":
        return FPN if name.startswith(FPN_MODULES) else BACKBONE
    if top == "proposal_generator":
        return "rpn"
    return (rest.partition(".")[0] if top == "roi_heads" and rest else top).replace("_", " ")


def part_of(name: str) -> str:
    """As `area_of`, with the backbone split into its stages: "stem", "res2" and so on."""
    if area_of(name) != BACKBONE:
        return area_of(name)
    return name.removeprefix("backbone.").removeprefix("bottom_up.").partition(".")[0]


def is_sync_norm(module: nn.Module) -> bool:
    """Whether `module` is a BatchNorm over all processes: torch's, the host's or ours."""
    return isinstance(module, _BatchNorm) and "Sync" in type(module).__name__


def norm_label(module: nn.Module) -> str | None:
    """ "GN", "SyncBN", "BN", "FrozenBN" or the class of another norm; None for what is no norm."""
    kind = type(module).__name__
    if "Norm" not in kind:
        return None
    return "SyncBN" if is_sync_norm(module) else _NORM_LABELS.get(kind, kind)


def trainable_batch_norms(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The BatchNorms, of any kind, that normalise by the batch they see."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.training:
            yield name, module


def frozen_norms_without_statistics(model: nn.Module) -> Iterator[str]:
    """Names of norms that use stored statistics and have none: they pass their input through.

    A FrozenBN counts if all four of its tensors are as constructed; weights of Detectron have the
    statistics fused into scale and bias.
    """
    for name, module in model.named_modules():
        if isinstance(module, FrozenBatchNorm2d):
            unchanged = is_constant(module.weight, 1) and is_constant(module.bias, 0)
        else:
            unchanged = isinstance(module, _BatchNorm) and model.training and not module.training
        if unchanged and _without_statistics(module):
            yield name


def _without_statistics(norm: nn.Module) -> bool:
    if norm.running_mean is None:  # a BatchNorm that always uses the batch it sees
        return False
    # The host constructs running_var as 1 - eps.
    return is_constant(norm.running_mean, 0) and is_constant(norm.running_var, 1, tolerance=1e-3)


def is_constant(tensor: torch.Tensor, value: float, tolerance: float = 0.0) -> bool:
    """Whether every element of `tensor` is `value`."""
    return bool(((tensor - value).abs() <= tolerance).all())


def describe_parts(model: nn.Module, missing: Collection[str] | None) -> str:
    """A table with one row per part: parameters, how many of them train, norms, where the weights come from.

    `missing` are the names that the weight file did not fill; None if none was loaded.
    """
    norms: dict[str, set[str]] = {}
    for name, module in model.named_modules():
        label = norm_label(module)
        if label:
            norms.setdefault(part_of(name), set()).add(label)
    counts: dict[str, list[int]] = {}  # part -> parameters, of them trainable, of them from the file
    for name, parameter in model.named_parameters():
        filled = missing is not None and name not in missing
        row = counts.setdefault(part_of(name), [0, 0, 0])
        for column, counted in enumerate((True, parameter.requires_grad, filled)):
            row[column] += parameter.numel() * counted
    order = {area: rank for rank, area in enumerate((BACKBONE, FPN))}
    areas = {part_of(name): area_of(name) for name, _ in model.named_parameters()}
    parts = sorted(counts, key=lambda part: order.get(areas[part], len(order)))
    rows = [_row(part, counts[part], norms.get(part, set())) for part in parts]
    total = [sum(column) for column in zip(*counts.values(), strict=True)]
    return _align([("part", "parameters", "trained", "norm", "weights"), *rows, _row("total", total, set())])


def _row(part: str, counts: list[int], norms: set[str]) -> tuple[str, ...]:
    total, trained, filled = counts
    weights = "random" if not filled else "file" if filled == total else f"file, {total - filled:,} random"
    return part, f"{total:,}", f"{trained:,}", "+".join(sorted(norms)) or "-", weights


def _align(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = (1, 2)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
