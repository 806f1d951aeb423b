"""Every model family trains and evaluates on the toy set through tools/train_net.py, and its loss falls."""

import json

import pytest
from conftest import REPOSITORY
from test_tools import run_tool

from rethink_pretrain.config import load_config

# Config -> metrics that its evaluation has to bring.
FAMILIES = {
    "scratch_mask_rcnn_R_18_FPN_gn": ("bbox/AP", "segm/AP"),
    "scratch_cascade_R_18_FPN_gn": ("bbox/AP", "segm/AP"),
    "scratch_keypoint_rcnn_R_18_FPN_gn": ("bbox/AP", "keypoints/AP"),
    "scratch_retinanet_R_18_FPN_gn": ("bbox/AP",),
    "scratch_faster_rcnn_VGG16": ("bbox/AP",),
    "scratch_mask_rcnn_X_152_FPN_gn": ("bbox/AP", "segm/AP"),
    "scratch_semantic_R_18_FPN_gn": ("sem_seg/mIoU",),
    "scratch_panoptic_R_18_FPN_gn": ("bbox/AP", "segm/AP", "sem_seg/mIoU"),
    "scratch_mask_rcnn_R_18_FPN_gn_tta": ("bbox/AP", "segm/AP", "tta/bbox/AP", "tta/segm/AP"),
}
# The same four images in every batch, so that the loss has to fall. metrics.json has a row for every 20
# iterations, their median losses; the last is compared with the second. Not with the first: while the RPN
# learns to find objects, the RoI heads get harder work, and RetinaNet's running count of positive anchors
# starts at 100.
ITERATIONS = 80
SHORT = [
    *("RETHINK.SCHEDULE", f"{4 * ITERATIONS} images", "SOLVER.IMS_PER_BATCH", "4", "TEST.EVAL_PERIOD", "0"),
    *("RETHINK.REFERENCE_WARMUP_ITERS", "2", "SOLVER.CHECKPOINT_PERIOD", "1000", "SEED", "0"),
    *("RETHINK.REFERENCE_LR", "0.02"),
    *("RETHINK.CASCADE_ITERS", str(ITERATIONS // 8)),  # of 16 images: the second half
]


# For 16 images. The configs' own suit hundreds of iterations, with a warm-up.
LEARNING_RATES = {"scratch_faster_rcnn_VGG16": "0.002"}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_family(name, datasets, tmp_path):
    config = REPOSITORY / "configs" / "toy" / f"{name}.yaml"
    split = load_config(config).DATASETS.TRAIN[0]
    opts = ["DATASETS.TRAIN", f"('{split}@4',)"]
    opts += ["RETHINK.REFERENCE_LR", LEARNING_RATES.get(name, "0.02"), "OUTPUT_DIR", str(tmp_path)]
    done = run_tool("train_net.py", "--config-file", str(config), *SHORT, *opts, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    early, late = (
        next(row for row in rows if row["iteration"] == iteration and "total_loss" in row)
        for iteration in (39, ITERATIONS - 1)
    )
    # The later stages of a young cascade have hardly any object of their IoU; their losses rise with these.
    losses = [key for key in early if "loss_" in key and not key.endswith(("_stage1", "_stage2"))]
    losses = losses or ["total_loss"]  # which is all that the host logs of a model with one loss
    assert sum(late[key] for key in losses) < sum(early[key] for key in losses)
    metrics = {key: value for row in rows for key, value in row.items()}
    assert metrics.keys() >= set(FAMILIES[name])
