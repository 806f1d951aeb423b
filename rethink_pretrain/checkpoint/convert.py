"""ResNet weights of others in the form that MODEL.WEIGHTS loads, and the overlay that goes with them."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml

from ..errors import UserError, one_line
from ..files import write_atomically, write_text
from .layouts import (
    AUTO,
    Network,
    check_file_name,
    expected_shapes,
    find_backbone,
    host_names,
    is_host_form,
    recognise,
)
from .reading import read_weights

SUFFIX = ".pth"
NORMS = ("SyncBN", "FrozenBN", "BN")  # those that can hold the statistics of a BatchNorm
# What torchvision, timm and MoCo normalise with, in grey levels of 0 to 255. Channels: red, green, blue.
PIXEL_MEAN = [123.675, 116.28, 103.53]
PIXEL_STD = [58.395, 57.12, 57.375]

# Where detectors keep their ResNet: below FPN, or, with C4, its last stage in the heads.
_FPN = "backbone.bottom_up."
_C4, _C4_RES5 = "backbone.", "roi_heads."


class _OverlayDumper(yaml.SafeDumper):
    """Lists on one line, as in the overlays of configs/."""

    def represent_list(self, data: list) -> yaml.Node:
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


_OverlayDumper.add_representer(list, _OverlayDumper.represent_list)


class Converted(NamedTuple):
    """Weights by the names of a detector, and where they come from."""

    weights: dict[str, torch.Tensor]
    network: Network
    layout: str
    prefix: str  # of the backbone's names in the file
    dropped: list[str]  # names in the file that a detector has no use for


def convert_file(path: str, layout: str = AUTO, *, c4: bool = False, trust_pickle: bool = False) -> Converted:
    """The backbone in a file of a layout of `LAYOUTS`, for detectors with FPN or else (`c4`) for those of C4.

    Raises `UserError` for a file that cannot be read, and for whatever the host's ResNet cannot be.
    """
    checkpoint = read_weights(path, trust_pickle)
    try:
        if checkpoint.get("matching_heuristics") or is_host_form(checkpoint["model"]):
            raise UserError("MODEL.WEIGHTS takes this file as it is; there is nothing to convert.")
        check_file_name(Path(path).name)
        return convert(checkpoint["model"], layout, c4=c4)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def convert(weights: Mapping[str, Any], layout: str = AUTO, *, c4: bool = False) -> Converted:
    """The same for weights by name, tensors or arrays. All that is of the network is kept as it is."""
    layout, prefix = find_backbone(weights, layout)
    inside = {name[len(prefix) :]: name for name in weights if name.startswith(prefix)}
    renamed, dropped = host_names(inside)
    tensors = {own: torch.as_tensor(weights[inside[name]]).detach() for name, own in renamed.items()}
    shapes = {own: tuple(value.shape) for own, value in tensors.items()}
    network = recognise(shapes)
    _check_shapes(shapes, expected_shapes(network), {own: inside[name] for name, own in renamed.items()})
    _check_values(tensors)
    return Converted(
        # Cloned: in memory that a tensor shares with others, torch would save the others, too.
        weights={_detector_name(name, c4): value.clone() for name, value in tensors.items()},
        network=network,
        layout=layout,
        prefix=prefix,
        dropped=[name for name in weights if not name.startswith(prefix)]
        + [inside[name] for name in dropped],
    )


def _detector_name(name: str, c4: bool) -> str:
    if not c4:
        return _FPN + name
    return (_C4_RES5 if name.startswith("res5.") else _C4) + name


def _check_shapes(shapes: dict[str, Any], expected: dict[str, Any], sources: dict[str, str]) -> None:
    """`sources`: the name in the file for each of `shapes`."""
    if surplus := shapes.keys() - expected.keys():
        raise UserError(f"{sources[min(surplus)]!r} is no part of the ResNet that the other names are of.")
    if lacking := expected.keys() - shapes.keys():
        raise UserError(
            f"{len(lacking)} tensors of the ResNet are not in it, such as the host's {min(lacking)!r}."
        )
    for name, shape in expected.items():
        if shapes[name] != shape:
            raise UserError(
                f"{sources[name]!r} has the shape {shapes[name]}, not {shape}: its width, groups or "
                "input channels are none that the host's ResNet can have."
            )


def _check_values(tensors: dict[str, torch.Tensor]) -> None:
    for name, value in tensors.items():
        if not value.is_floating_point() or not torch.isfinite(value).all():
            raise UserError(f"the weights that become {name!r} are no finite numbers. Look for a whole copy.")


def overlay_text(network: Network, weights: str, about: str, norm: str = NORMS[0]) -> str:
    """The YAML of an init overlay for the file `weights`; `about` becomes its first line, a comment.

    `norm` is what a BatchNorm becomes, one of `NORMS`; a GroupNorm stays one.
    """
    model = {
        "WEIGHTS": weights,
        "PIXEL_MEAN": PIXEL_MEAN,
        "PIXEL_STD": PIXEL_STD,
        "BACKBONE": {"FREEZE_AT": 2},
        "RESNETS": {
            "DEPTH": network.depth,
            "NORM": norm if network.norm == "BN" else network.norm,
            "STRIDE_IN_1X1": False,
            "STEM_OUT_CHANNELS": network.stem_channels,
            "RES2_OUT_CHANNELS": network.res2_channels,
            "NUM_GROUPS": network.num_groups,
            "WIDTH_PER_GROUP": network.width_per_group,
        },
    }
    node = {"MODEL": model, "INPUT": {"FORMAT": "RGB"}}
    keys = yaml.dump(node, Dumper=_OverlayDumper, sort_keys=False, allow_unicode=True, width=1000)
    return (
        f"# Pre-trained: {one_line(about)}\n"
        "# Stem and res2 not trained, as in the paper; images in RGB, normalised as in pre-training.\n"
        '# The same network from scratch: this overlay, and after it the options MODEL.WEIGHTS "" '
        "MODEL.BACKBONE.FREEZE_AT 0.\n"
        f"{keys}"
    )


def check_outputs(source: Path, weights: Path, overlay: Path, force: bool) -> None:
    """Raises `UserError` for other suffixes, and for files that only `force` replaces, or nothing."""
    for path, suffix in ((weights, SUFFIX), (overlay, ".yaml")):
        if path.suffix != suffix:
            raise UserError(f"{path}: the name of the file has to end in {suffix}.")
        if path.exists() and source.exists() and path.samefile(source):
            raise UserError(f"{path} is the file to convert. Choose another name for the result.")
        if path.exists() and not force:
            raise UserError(f"{path} is there already. Replace it with --force, or choose another name.")


def write_converted(
    path: Path,
    weights: Mapping[str, torch.Tensor],
    author: str = "",
    pretraining: Mapping[str, Any] | None = None,
) -> None:
    """Write what MODEL.WEIGHTS loads; `pretraining`: images, instances, pixels and recipe, as far as known.

    Raises `UserError` for a folder that cannot be written.
    """
    content: dict[str, Any] = {"model": dict(weights), **({"__author__": author} if author else {})}
    if pretraining:
        content["pretraining"] = dict(pretraining)
    buffer = io.BytesIO()  # torch's own writer tells of a full disk in another way
    torch.save(content, buffer)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(buffer.getbuffer()))
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from None


def write_overlay(path: Path, text: str) -> None:
    """Raises `UserError` for a folder that cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from None
