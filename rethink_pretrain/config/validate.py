"""Combinations that cannot train, refused before the first second of training, each with its fix."""

from detectron2.config import CfgNode

from ..errors import UserError
from ..layers import get_norm_factory

_AUGMENTATIONS = ("resize", "lsj")
_DOCTOR = ("stop", "warn", "off")
_POLICIES = ("skip", "lower_lr", "roll_back", "stop")
_SPEED = {
    "PRECISION": ("fp32", "bf16", "auto"),
    "MEMORY_FORMAT": ("contiguous", "channels_last", "auto"),
    "COCO_EVAL": ("faster-coco-eval", "hotcoco"),
}


def validate(cfg: CfgNode) -> None:
    """Raises `UserError` for the first setting of `cfg` that is impossible or silently wrong."""
    for check in _CHECKS:
        check(cfg)


def norm_nodes(cfg: CfgNode) -> tuple[str, ...]:
    """The nodes of `cfg.MODEL` whose NORM is in use by the model that `cfg` describes."""
    model = cfg.MODEL
    with_rois = model.META_ARCHITECTURE in ("GeneralizedRCNN", "PanopticFPN")
    in_use = {
        "VGG": "vgg" in model.BACKBONE.NAME,
        "RESNETS": "resnet" in model.BACKBONE.NAME,
        "FPN": "fpn" in model.BACKBONE.NAME,
        "ROI_BOX_HEAD": with_rois,
        "ROI_MASK_HEAD": with_rois and model.MASK_ON,
        "ROI_KEYPOINT_HEAD": with_rois and model.KEYPOINT_ON,
        "RETINANET": "RetinaNet" in model.META_ARCHITECTURE,
        "SEM_SEG_HEAD": model.META_ARCHITECTURE in ("SemanticSegmentor", "PanopticFPN"),
    }
    return tuple(node for node, used in in_use.items() if used)


def _check_names(cfg: CfgNode) -> None:
    for key, names in (("AUGMENTATION", _AUGMENTATIONS), ("DOCTOR", _DOCTOR)):
        if cfg.RETHINK[key] not in names:
            raise UserError(f"RETHINK.{key} {cfg.RETHINK[key]!r} is none of: {', '.join(names)}.")
    numerics = cfg.RETHINK.NUMERICS
    if numerics.POLICY not in _POLICIES:
        raise UserError(f"RETHINK.NUMERICS.POLICY {numerics.POLICY!r} is none of: {', '.join(_POLICIES)}.")


def _check_limits(cfg: CfgNode) -> None:
    node = cfg.RETHINK
    if not 0 <= node.MAX_BAD_IMAGES <= 1:
        raise UserError(f"RETHINK.MAX_BAD_IMAGES {node.MAX_BAD_IMAGES} is a share of the images: 0 to 1.")
    for key, value in (
        ("KEEP_CHECKPOINTS", node.KEEP_CHECKPOINTS),
        ("NUMERICS.EXPLOSION", node.NUMERICS.EXPLOSION),
        ("NUMERICS.MAX_IN_A_ROW", node.NUMERICS.MAX_IN_A_ROW - 1),
        ("MAX_IMAGE_PIXELS", node.MAX_IMAGE_PIXELS - 1),
    ):
        if value < 0:
            raise UserError(f"RETHINK.{key} is too small. See its meaning in config/defaults.py.")


def _check_images(cfg: CfgNode) -> None:
    mean, std = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    if len(mean) != len(std):
        raise UserError(
            f"MODEL.PIXEL_MEAN has {len(mean)} values and PIXEL_STD {len(std)}: give each one per channel. "
            "tools/measure_pixels.py measures both."
        )
    if cfg.RETHINK.AUGMENTATION == "lsj" and cfg.INPUT.CROP.ENABLED:
        raise UserError("INPUT.CROP.ENABLED True and RETHINK.AUGMENTATION lsj both crop. Choose one.")


def _check_norms(cfg: CfgNode) -> None:
    for node in norm_nodes(cfg):
        try:
            get_norm_factory(cfg.MODEL[node].NORM)
        except UserError as error:
            raise UserError(f"MODEL.{node}.NORM: {error}") from None


def _check_random_weights(cfg: CfgNode) -> None:
    if cfg.MODEL.WEIGHTS:
        return
    if cfg.MODEL.BACKBONE.FREEZE_AT > 0:
        # Costs 3.3 box AP at 3x (Detectron, commit f8ffc87).
        raise UserError(
            f"MODEL.BACKBONE.FREEZE_AT {cfg.MODEL.BACKBONE.FREEZE_AT} would freeze layers that hold random "
            'weights (MODEL.WEIGHTS is ""). Set FREEZE_AT to 0, or give weights.'
        )
    for node in norm_nodes(cfg):
        if cfg.MODEL[node].NORM == "FrozenBN":
            raise UserError(
                f"MODEL.{node}.NORM FrozenBN normalises nothing when the weights are random (MODEL.WEIGHTS "
                'is ""). Set it to GN or SyncBN, or give weights.'
            )


def _check_solver(cfg: CfgNode) -> None:
    solver = cfg.SOLVER
    first_drop = min(solver.STEPS, default=solver.MAX_ITER)
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and first_drop <= solver.WARMUP_ITERS:
        raise UserError(
            f"The warm-up of {solver.WARMUP_ITERS} iterations does not end before the first learning-rate "
            f"drop at {first_drop}. Shorten it (RETHINK.REFERENCE_WARMUP_ITERS) or train longer."
        )


def _check_speed(cfg: CfgNode) -> None:
    speed = cfg.RETHINK.SPEED
    for key, names in _SPEED.items():
        if speed[key] not in names:
            raise UserError(f"RETHINK.SPEED.{key} {speed[key]!r} is none of: {', '.join(names)}.")
    if speed.PRECISION != "fp32" and cfg.SOLVER.AMP.ENABLED:
        raise UserError(
            f"RETHINK.SPEED.PRECISION {speed.PRECISION} and SOLVER.AMP.ENABLED True (fp16) exclude each "
            "other. Set one of them back."
        )
    if speed.ASPECT_BUCKETS < 2 or speed.ASPECT_BUCKETS % 2:
        raise UserError(
            f"RETHINK.SPEED.ASPECT_BUCKETS {speed.ASPECT_BUCKETS} is not an even number of 2 or more: half "
            "of them are of wide images."
        )
    if speed.TEST_BATCH < 1:
        raise UserError(f"RETHINK.SPEED.TEST_BATCH {speed.TEST_BATCH} is a number of images: 1 or more.")


_CHECKS = (
    _check_names,
    _check_limits,
    _check_images,
    _check_norms,
    _check_random_weights,
    _check_solver,
    _check_speed,
)
