"""Checks of norms, batch, learning rate, length and disk against what the paper did."""

import shutil
from pathlib import Path

from torch import nn

from ...data import CLASSIFIER
from ...solver.schedule import REFERENCE_BATCH
from .parts import BACKBONE, FPN, area_of, is_sync_norm, norm_label, trainable_batch_norms
from .patient import STOP, WARN, Finding, Patient, join_names

_MIN_BN_IMAGES = 8  # per process. Ours: the paper only says that 2 are too few for BatchNorm (section 3)

# Where the paper normalises (section 3), and the key that does it. The RPN, predictors, deconvolutions and
# fully connected layers have no norm there either.
_NORM_KEYS = {
    BACKBONE: "MODEL.RESNETS.NORM",
    FPN: "MODEL.FPN.NORM",
    "box head": "MODEL.ROI_BOX_HEAD.NORM",
    "mask head": "MODEL.ROI_MASK_HEAD.NORM",
    "keypoint head": "MODEL.ROI_KEYPOINT_HEAD.NORM",
    "head": "MODEL.RETINANET.NORM",
    "sem seg head": "MODEL.SEM_SEG_HEAD.NORM",
}
_PREDICTORS = ("predictor", "cls_score", "bbox_pred")

_LARGEST_BATCH = 64  # Detectron2's scratch_mask_rcnn_R_50_FPN_9x_gn and its large-scale-jitter baselines

# Training images, every visit counted, below which random weights stay far behind in the paper: smallest
# training set, images, what it measured there (table 1; figure 7, whose 10k values are read off its curves).
# It names no length for sets below 10k images, so there is no rule for them.
_SCRATCH_LENGTHS = (
    (35_000, 2_880_000, "R50 is 3.5 AP behind its pre-trained twin after 2.88M COCO images, level at 8.64M"),
    (10_000, 960_000, "with 10k images it is about 3.4 AP behind after 0.96M, level at 3.52M"),
)


def check_missing_norms(patient: Patient) -> list[Finding]:
    """Parts without a norm in a model that starts from random weights."""
    if patient.cfg.MODEL.WEIGHTS:
        return []
    bare, normalised = set(), set()
    for name, module in patient.model.named_modules():
        area = area_of(name)
        if norm_label(module) not in (None, "FrozenBN"):
            normalised.add(area)
        elif isinstance(module, nn.Conv2d) and name.rpartition(".")[2] not in _PREDICTORS:
            bare.add(area)
    areas = [area for area in _NORM_KEYS if area in bare - normalised]
    if not areas:
        return []
    what = f"no norm in {', '.join(areas)}, from random weights."
    keys = [_norm_key(patient, area) for area in areas]
    fix = (
        f"set {', '.join(keys)} to GN. (The paper's VGG-16 trains without; it needs RETHINK.INIT msra and "
        "11x, and reaches 35.2 AP.)"
    )
    return [Finding(WARN, what, fix)]


def _norm_key(patient: Patient, area: str) -> str:
    vgg = area == BACKBONE and "vgg" in patient.cfg.MODEL.BACKBONE.NAME
    return "MODEL.VGG.NORM" if vgg else _NORM_KEYS[area]


def check_batch_norm_size(patient: Patient) -> list[Finding]:
    """BatchNorm over too few images."""
    batch = patient.cfg.SOLVER.IMS_PER_BATCH
    per_process = batch // patient.processes
    norms = list(trainable_batch_norms(patient.model))
    synced = [name for name, module in norms if is_sync_norm(module)]
    plain = [name for name, module in norms if not is_sync_norm(module)]
    ret = []
    if synced and batch < REFERENCE_BATCH:
        what = (
            f"SyncBN has statistics over {batch} images ({join_names(synced, 1)}); "
            f"the paper's span {REFERENCE_BATCH}."
        )
        ret.append(Finding(WARN, what, f"set SOLVER.IMS_PER_BATCH to {REFERENCE_BATCH} or more, or use GN."))
    if plain and per_process < _MIN_BN_IMAGES:
        what = f"BatchNorm has statistics over {per_process} images per process ({join_names(plain, 1)})."
        ret.append(Finding(WARN, what, "set NORM to GN, or to SyncBN with more processes."))
    return ret


def check_learning_rate(patient: Patient) -> list[Finding]:
    """A learning rate set by hand, far from the linear rule."""
    cfg = patient.cfg
    batch, rate = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.BASE_LR
    expected = cfg.RETHINK.REFERENCE_LR * batch / REFERENCE_BATCH
    if cfg.RETHINK.SCHEDULE or expected <= 0 or 0.5 <= rate / expected <= 2:
        return []
    what = (
        f"SOLVER.BASE_LR {rate:g} is {rate / expected:.3g} times what the linear rule gives for {batch} "
        f"images per batch (RETHINK.REFERENCE_LR {cfg.RETHINK.REFERENCE_LR:g} for {REFERENCE_BATCH})."
    )
    fix = f"set SOLVER.BASE_LR {expected:g}, or RETHINK.SCHEDULE, from which it follows."
    return [Finding(WARN, what, fix)]


def check_batch(patient: Patient) -> list[Finding]:
    """More images per step than any published run of this recipe had."""
    batch = patient.cfg.SOLVER.IMS_PER_BATCH
    if batch <= _LARGEST_BATCH:
        return []
    what = (
        f"{batch} images per step: the largest batch with a published result of training from scratch by "
        f"the linear rule is {_LARGEST_BATCH} (Detectron2's 9x, box AP 43.7)."
    )
    fix = f"set SOLVER.IMS_PER_BATCH to {_LARGEST_BATCH} or less, or lower RETHINK.REFERENCE_LR."
    return [Finding(WARN, what, fix)]


def check_length(patient: Patient) -> list[Finding]:
    """A schedule that is far too short for random weights. Sets below 10k images are not judged."""
    cfg = patient.cfg
    if cfg.MODEL.WEIGHTS or cfg.MODEL.META_ARCHITECTURE == CLASSIFIER:
        return []
    size = patient.num_images or cfg.RETHINK.IMAGES_PER_EPOCH
    images = cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH
    for smallest, enough, measured in _SCRATCH_LENGTHS:
        if size >= smallest:
            if images >= enough:
                return []
            what = (
                f"{images / 1e6:.3g}M training images ({images / size:.3g} epochs of {size}) from random "
                f"weights: in the paper, {measured}."
            )
            fix = f'set RETHINK.SCHEDULE to "{enough / 1e6:g}M images" at the least, or start from weights.'
            return [Finding(WARN, what, fix)]
    return []


def count_images(loader: object) -> int | None:
    """Images of the data set below a training loader; None if the data set does not tell."""
    while hasattr(loader, "dataset"):
        loader = loader.dataset
    try:
        return len(loader)
    except TypeError:
        return None


def check_disk(patient: Patient) -> list[Finding]:
    """Checkpoints that will not fit, those of an earlier session of the same run counted as written."""
    if patient.output_dir is None:
        return []
    size, wanted = checkpoint_bytes(patient.model), checkpoint_count(patient)
    written = len(list(patient.output_dir.glob("model_*.pth")))
    needed = max(wanted - written, 0) * size
    folder = next(path for path in (patient.output_dir, *patient.output_dir.parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    if needed <= free:
        return []
    what = (
        f"{wanted - written} checkpoints of {size / 1e9:.2f} GB need {needed / 1e9:.1f} GB, "
        f"but {free / 1e9:.1f} GB are free at {str(folder)!r}."
    )
    room = free // size + written - bool(patient.cfg.RETHINK.WATCH.BEST_METRIC)
    if room < 1:
        return [Finding(STOP, what, "choose an OUTPUT_DIR with more space.")]
    period = (patient.cfg.SOLVER.MAX_ITER - 1) // room + 1
    keep = f"RETHINK.KEEP_CHECKPOINTS to {room - 2} or less, " if room > 2 else ""
    fix = f"set SOLVER.CHECKPOINT_PERIOD to {period} or more, {keep}or choose an OUTPUT_DIR with more space."
    return [Finding(STOP, what, fix)]


def checkpoint_count(patient: Patient) -> int:
    """How many files a run has at most: one per period but for the last, model_final and perhaps model_best.

    Where only some are kept, the oldest goes when the newest is there.
    """
    solver, keep = patient.cfg.SOLVER, patient.cfg.RETHINK.KEEP_CHECKPOINTS
    periodic = (solver.MAX_ITER - 1) // solver.CHECKPOINT_PERIOD if solver.CHECKPOINT_PERIOD > 0 else 0
    if keep:
        periodic = min(periodic, keep + 1)
    return periodic + 1 + bool(patient.cfg.RETHINK.WATCH.BEST_METRIC)


def checkpoint_bytes(model: nn.Module) -> int:
    """Weights, and the momentum of those that train."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return weights + sum(parameter.numel() * parameter.element_size() for parameter in trained)


def local_folder(output_dir: str) -> Path | None:
    """`output_dir` as an absolute path, None where it is an address of remote storage."""
    return None if "://" in output_dir else Path(output_dir).absolute()
