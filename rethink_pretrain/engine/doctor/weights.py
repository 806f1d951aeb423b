"""Checks of where the weights come from and of what the input has to look like for them."""

import re
from typing import NamedTuple

from detectron2.config import CfgNode

from .parts import BACKBONE, area_of, frozen_norms_without_statistics, trainable_batch_norms
from .patient import STOP, WARN, Finding, Patient, join_names


class Profile(NamedTuple):
    """What the images of a weight file looked like in its own training, and how its network differs."""

    image_format: str
    mean: tuple[float, float, float]  # grey levels, in the order of the format
    std: tuple[float, float, float]
    stride_in_1x1: bool
    fused: bool = False  # BatchNorm stored as scale and bias, without statistics


_MEAN = (103.53, 116.28, 123.675)  # the host's; Detectron's 102.9801, 115.9465, 122.7717 is as good
_STD = (57.375, 57.12, 58.395)
_ONE = (1.0, 1.0, 1.0)

# Sources: the host's model_zoo/configs, the notes in its checkpoint/catalog.py, its MODEL_ZOO.md, and
# tools/convert-torchvision-to-d2.py for the RGB file. The first pattern found in MODEL.WEIGHTS counts.
# `catalog://` and .../detectron/ name the files of Detectron (Caffe2), detectron2:// those converted again.
PROFILES: dict[str, Profile] = {
    r"\bR-(50|101)-GN\b": Profile("BGR", _MEAN, _ONE, False),
    r"torchvision/R-\d+\b": Profile("RGB", _MEAN[::-1], _STD[::-1], False),
    r"(catalog://|/detectron/)ImageNetPretrained/MSRA/R-(50|101)\b": Profile("BGR", _MEAN, _ONE, True, True),
    r"ImageNetPretrained/MSRA/R-(50|101)\b": Profile("BGR", _MEAN, _ONE, True),
    r"catalog://ImageNetPretrained/FAIR/X-101-(32x8d|64x4d)\b": Profile("BGR", _MEAN, _ONE, False, True),
    r"/detectron/ImageNetPretrained/20171220/X-101-32x8d\b": Profile("BGR", _MEAN, _ONE, False, True),
    r"ImageNetPretrained/FAIR/X-101-32x8d\b": Profile("BGR", _MEAN, _STD, False),
}

_MEAN_TOLERANCE = 2.0  # grey levels; published means of ImageNet differ by 0.9
_STD_TOLERANCE = 0.05  # relative


def find_profile(weights: str) -> Profile | None:
    """The profile of a weight file by its name; None for one that is not known."""
    return next((profile for pattern, profile in PROFILES.items() if re.search(pattern, weights)), None)


def check_frozen_random(patient: Patient) -> list[Finding]:
    """Layers that never train and hold random values (stem and res2 cost 3.3 box AP at 3x in Detectron)."""
    unfilled = patient.random_parameters()
    frozen = [
        name
        for name, parameter in patient.model.named_parameters()
        if name in unfilled and not parameter.requires_grad
    ]
    if not frozen:
        return []
    what = f"{len(frozen)} parameters are frozen and hold random values ({join_names(frozen)})."
    return [Finding(STOP, what, "set MODEL.BACKBONE.FREEZE_AT 0, or give weights that fill these layers.")]


def check_frozen_norms(patient: Patient) -> list[Finding]:
    """Norms with fixed statistics that nobody loaded."""
    if patient.weights_pending:
        return []
    names = list(frozen_norms_without_statistics(patient.model))
    if not names:
        return []
    what = f"{len(names)} norms are frozen without loaded statistics and do nothing ({join_names(names)})."
    return [Finding(STOP, what, "use GN or SyncBN as NORM, or give weights with BatchNorm statistics.")]


def check_coverage(patient: Patient) -> list[Finding]:
    """A weight file that fits only in parts, which the host only logs."""
    required = patient.cfg.RETHINK.MIN_COVERAGE
    if patient.coverage is None or patient.coverage >= required:
        return []
    unfilled = (
        name
        for name, _ in patient.model.named_parameters()
        if area_of(name) == BACKBONE and name in (patient.missing or ())
    )
    what = (
        f"the weight file fills {patient.coverage:.1%} of the parameters that it should, less than "
        f"RETHINK.MIN_COVERAGE {required:.0%} (not filled: {join_names(unfilled) or 'none of the backbone'})."
    )
    fix = (
        "give weights of this backbone (depth, widths, norm, names of the layers), or lower MIN_COVERAGE "
        "if the rest is meant to start at random."
    )
    return [Finding(STOP, what, fix)]


def check_profile(patient: Patient) -> list[Finding]:
    """Input or network that do not fit a known weight file: it loads, and is worth little."""
    cfg = patient.cfg
    profile = find_profile(cfg.MODEL.WEIGHTS)
    if profile is None:
        return []
    findings = [*_check_pixels(cfg, profile), *_check_stride(cfg, profile)]
    batch_norms = [name for name, _ in trainable_batch_norms(patient.model) if area_of(name) == BACKBONE]
    if profile.fused and batch_norms:
        # The host's checkpoint/catalog.py: such a file is only right for FrozenBN.
        what = f"{cfg.MODEL.WEIGHTS} has no BatchNorm statistics, but {join_names(batch_norms)} need them."
        other = cfg.MODEL.WEIGHTS.replace("catalog://", "detectron2://")
        findings.append(Finding(STOP, what, f"set MODEL.RESNETS.NORM FrozenBN, or use {other}.pkl."))
    return findings


def _check_pixels(cfg: CfgNode, profile: Profile) -> list[Finding]:
    mean, std = tuple(cfg.MODEL.PIXEL_MEAN), tuple(cfg.MODEL.PIXEL_STD)
    if len(mean) != 3 or len(std) != 3:
        return []  # another number of channels than the file's: no value is known for it
    ret = []
    if profile.image_format != cfg.INPUT.FORMAT:
        ret.append(_mismatch(cfg, STOP, "INPUT.FORMAT", cfg.INPUT.FORMAT, profile.image_format))
    if any(abs(own / known - 1) > _STD_TOLERANCE for own, known in zip(std, profile.std, strict=True)):
        ret.append(_mismatch(cfg, STOP, "MODEL.PIXEL_STD", list(std), list(profile.std)))
    if not _close(mean, profile.mean):
        # Measured on data of the user's own, another mean can be right; channels in the wrong order and
        # values between 0 and 1 cannot.
        grave = _close(mean, profile.mean[::-1]) or max(mean) <= 1
        severity = STOP if grave else WARN
        ret.append(_mismatch(cfg, severity, "MODEL.PIXEL_MEAN", list(mean), list(profile.mean)))
    return ret


def _close(mean: tuple[float, ...], known: tuple[float, ...]) -> bool:
    return all(abs(one - other) <= _MEAN_TOLERANCE for one, other in zip(mean, known, strict=True))


def _check_stride(cfg: CfgNode, profile: Profile) -> list[Finding]:
    resnet = cfg.MODEL.RESNETS
    if "resnet" not in cfg.MODEL.BACKBONE.NAME or resnet.DEPTH < 50:
        return []  # basic blocks have no 1x1 convolution that could hold the stride
    if profile.stride_in_1x1 == resnet.STRIDE_IN_1X1:
        return []
    key = "MODEL.RESNETS.STRIDE_IN_1X1"
    return [_mismatch(cfg, STOP, key, resnet.STRIDE_IN_1X1, profile.stride_in_1x1)]


def _mismatch(cfg: CfgNode, severity: str, key: str, current: object, known: object) -> Finding:
    what = f"{key} is {current}, but {cfg.MODEL.WEIGHTS} was trained with {known}."
    return Finding(severity, what, f"set {key} to {known}.")
