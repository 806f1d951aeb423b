"""ResNets as torchvision names them, and as the host does: which names, and which shapes below them.

timm and most self-supervised methods keep torchvision's names, behind a prefix of their own.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ..errors import UserError, one_line

Shape = tuple[int, ...]

AUTO = "auto"
# Layout -> how names of its backbone may begin, perhaps behind torch's "module.".
LAYOUTS: dict[str, tuple[str, ...]] = {
    "torchvision": ("", "backbone.body."),  # a classifier, a detector; SwAV
    "timm": ("",),
    "moco": ("encoder_q.", "base_encoder."),  # v1 and v2, v3
    "simsiam": ("encoder.",),
    "backbone": ("backbone.",),  # DINO, Barlow Twins, VICReg and others
}

# Depth -> whether its blocks are bottlenecks, and how many there are per stage.
_BLOCKS = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}

# What is above the last stage, and what self-supervision keeps beside it: a detector has no use for them.
_HEADS = re.compile(
    r"(fc|heads?|classifier|linear|last_linear|predictor|projector|projection_head|prototypes|mlp|queue|queue_ptr)\b"
)
_COUNTER = ".num_batches_tracked"  # of BatchNorm: nothing that computes reads it

# What the host's ResNet has no place for, by the names that it leaves in a file.
_FOREIGN = {
    r"(^|\.)attnpool\.": "CLIP's ResNet (three convolutions in the stem, average pooling, attention)",
    r"(^|\.)(cls_token|class_token|class_embedding)$": "a Vision Transformer",
    r"(^|\.)(stages|blocks|features|s1|denseblock1)\.": "a network of other stages than layer1 to layer4",
    r"^conv1\.\d|^stem\.|^(conv|bn)[23]\.": "a stem of three convolutions (as resnet50c, resnet50d)",
    r"\.downsample\.2\.": "average pooling in the shortcut (as resnet50d)",
    r"\.(se|attn)\.": "attention in the blocks (SE, ECA and the like)",
    r"\.convs\.|\.conv\d\.(conv|fc1|paths)\.": "split convolutions (Res2Net, ResNeSt, SKNet)",
    r"\.aa\.|^maxpool\.": "anti-aliased pooling",
}
# timm's anti-aliased models leave no trace in their weights.
_FOREIGN_FILES = re.compile(r"resnet(blur|aa)|resnext(blur|aa)", re.IGNORECASE)
_HOST = re.compile(r"(backbone\.(bottom_up\.)?)?(stem\.conv1|res2\.0)\.")


class Network(NamedTuple):
    """What `build_resnet` has to be told; `norm` is "BN" (with statistics), or "GN" (without)."""

    depth: int
    norm: str
    stem_channels: int
    res2_channels: int
    num_groups: int
    width_per_group: int


def is_host_form(names: Iterable[str]) -> bool:
    """Whether these are the host's own names, which need no conversion."""
    return any(map(_HOST.match, names))


def find_backbone(names: Iterable[str], layout: str = AUTO) -> tuple[str, str]:
    """Layout and prefix of the one backbone among `names`. Raises `UserError` for none and for several."""
    names = list(names)
    known = LAYOUTS if layout == AUTO else {layout: LAYOUTS[layout]}
    found: dict[str, str] = {}  # prefix -> layout
    for name, prefixes in known.items():
        for prefix in (wrapper + prefix for prefix in prefixes for wrapper in ("", "module.")):
            if any(key.startswith(f"{prefix}layer1.0.conv1.") for key in names):
                found.setdefault(prefix, name)
    if not found:
        raise UserError(_no_backbone(names, layout))
    if len(found) > 1:
        several = ", ".join(f"{prefix + 'conv1'!r} ({name})" for prefix, name in found.items())
        raise UserError(f"it holds several backbones: {several}. Choose one with --layout.")
    prefix, name = found.popitem()
    return name, prefix


def _no_backbone(names: list[str], layout: str) -> str:
    for pattern, words in _FOREIGN.items():
        if any(re.search(pattern, name) for name in names):
            return f"this is {words}, which the host's ResNet cannot be."
    others = "" if layout == AUTO else f" of layout {layout}; --layout auto looks for all"
    shown = repr(one_line(names[0][:80]))
    return f"no ResNet with torchvision's names{others}. The first name in it is {shown}."


def check_file_name(name: str) -> None:
    """Raises `UserError` for a model that only its name tells from a plain ResNet."""
    if found := _FOREIGN_FILES.search(name):
        raise UserError(
            f"by its name ({found[0]}) the model has anti-aliased pooling, which leaves no weights and which "
            "the host's ResNet does not have. If it is a plain ResNet, rename the file."
        )


def host_names(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """For torchvision's names without prefix: name -> the host's, below its ResNet; and those to drop.

    Raises `UserError` for a name of what the host's ResNet cannot express.
    """
    renamed: dict[str, str] = {}
    dropped = []
    for name in names:
        if _HEADS.match(name) or name.endswith(_COUNTER):
            dropped.append(name)
        elif (own := _rename(name)) is None:
            raise UserError(_foreign(name))
        else:
            renamed[name] = own
    return renamed, dropped


def _foreign(name: str) -> str:
    shown = repr(one_line(name[:80]))
    for pattern, words in _FOREIGN.items():
        if re.search(pattern, name):
            return f"{shown} belongs to {words}, which the host's ResNet does not have."
    return f"{shown} is no part of a plain ResNet. The host's ResNet has no place for it."


def _rename(name: str) -> str | None:
    """ "res3.0.shortcut.norm.bias" for "layer2.0.downsample.1.bias"; None for a name of another form."""
    if found := re.fullmatch(r"(conv|bn)1\.(\w+)", name):
        return _below("stem.conv1", found[1] == "bn", found[2])
    if found := re.fullmatch(r"layer([1-4])\.(\d{1,3})\.(conv|bn)([123])\.(\w+)", name):
        block = f"res{int(found[1]) + 1}.{found[2]}"
        return _below(f"{block}.conv{found[4]}", found[3] == "bn", found[5])
    if found := re.fullmatch(r"layer([1-4])\.(\d{1,3})\.downsample\.([01])\.(\w+)", name):
        return _below(f"res{int(found[1]) + 1}.{found[2]}.shortcut", found[3] == "1", found[4])
    return None


def _below(conv: str, is_norm: bool, parameter: str) -> str:
    return f"{conv}.norm.{parameter}" if is_norm else f"{conv}.{parameter}"


def recognise(shapes: Mapping[str, Shape]) -> Network:
    """The network whose tensors, by the host's names, have these shapes.

    Raises `UserError` for blocks that are those of no known depth.
    """
    found = (re.match(r"res(\d)\.(\d+)\.", name) for name in shapes)
    blocks = {(int(one[1]), int(one[2])) for one in found if one}
    counts = tuple(sum(stage == index for stage, _ in blocks) for index in (2, 3, 4, 5))
    bottleneck = "res2.0.conv3.weight" in shapes
    depth = next((depth for depth, kind in _BLOCKS.items() if kind == (bottleneck, counts)), None)
    if depth is None:
        kind = "bottlenecks" if bottleneck else "basic blocks"
        raise UserError(f"stages of {counts} {kind} are of no known depth ({', '.join(map(str, _BLOCKS))}).")
    if "stem.conv1.norm.weight" not in shapes:
        raise UserError(
            "the first convolution has no norm (bn1). A ResNet without norms cannot be converted."
        )
    last = "res2.0.conv3" if bottleneck else "res2.0.conv2"
    grouped = shapes.get("res2.0.conv2.weight", ()) if bottleneck else ()
    width, per_group = grouped[:2] if len(grouped) == 4 and 0 not in grouped else (64, 64)
    return Network(
        depth=depth,
        norm="BN" if "stem.conv1.norm.running_mean" in shapes else "GN",
        stem_channels=_channels(shapes, "stem.conv1"),
        res2_channels=_channels(shapes, last),
        num_groups=width // per_group or 1,
        width_per_group=per_group,
    )


def _channels(shapes: Mapping[str, Shape], conv: str) -> int:
    return next(iter(shapes.get(f"{conv}.weight", ())), 0)


def expected_shapes(network: Network) -> dict[str, Shape]:
    """All tensors of the network below the host's ResNet: name -> shape, for images of 3 channels."""
    ret: dict[str, Shape] = {}
    parameters = ("weight", "bias", *(("running_mean", "running_var") if network.norm == "BN" else ()))
    for conv, shape in _conv_shapes(network).items():
        ret[f"{conv}.weight"] = shape
        ret.update({f"{conv}.norm.{parameter}": shape[:1] for parameter in parameters})
    return ret


def _conv_shapes(network: Network) -> dict[str, Shape]:
    bottleneck, counts = _BLOCKS[network.depth]
    ret: dict[str, Shape] = {"stem.conv1": (network.stem_channels, 3, 7, 7)}
    channels = network.stem_channels
    for stage, count in enumerate(counts):
        out = network.res2_channels * 2**stage
        for index in range(count):
            block = f"res{stage + 2}.{index}"
            width = network.num_groups * network.width_per_group * 2**stage
            if bottleneck:
                ret[f"{block}.conv1"] = (width, channels, 1, 1)
                ret[f"{block}.conv2"] = (width, width // network.num_groups, 3, 3)
                ret[f"{block}.conv3"] = (out, width, 1, 1)
            else:
                ret[f"{block}.conv1"] = (out, channels, 3, 3)
                ret[f"{block}.conv2"] = (out, out, 3, 3)
            if channels != out:
                ret[f"{block}.shortcut"] = (out, channels, 1, 1)
            channels = out
    return ret
