"""Every impossible combination is refused with its fix, and its valid neighbours pass."""

from pathlib import Path

import pytest
from detectron2.config import CfgNode

from rethink_pretrain.config import load_config, validate
from rethink_pretrain.config.validate import norm_nodes
from rethink_pretrain.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"
NODES = ["RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD"]


@pytest.fixture
def scratch() -> CfgNode:
    return load_config(CONFIGS / "scratch_6x.yaml")


@pytest.fixture
def finetune() -> CfgNode:
    return load_config(CONFIGS / "finetune_6x.yaml")


def refusal(cfg: CfgNode) -> str:
    with pytest.raises(UserError) as info:
        validate(cfg)
    assert "\n" not in str(info.value)
    return str(info.value)


def test_the_starting_points_are_valid(scratch, finetune):
    validate(scratch)
    validate(finetune)


def test_load_config_validates():
    with pytest.raises(UserError, match="FREEZE_AT"):
        load_config(CONFIGS / "scratch_6x.yaml", opts=["MODEL.BACKBONE.FREEZE_AT", "2"])


@pytest.mark.parametrize("node", NODES)
class TestNorms:
    def test_unknown(self, scratch, node):
        scratch.MODEL[node].NORM = "GroupNorm"
        message = refusal(scratch)
        assert message.startswith(f"MODEL.{node}.NORM: Unknown norm 'GroupNorm'.")
        assert all(name in message for name in ("GN", "SyncBN", "BN", "FrozenBN", "none"))

    @pytest.mark.parametrize("name", ["GN", "SyncBN", "BN", "none", ""])
    def test_known(self, scratch, node, name):
        scratch.MODEL[node].NORM = name
        validate(scratch)

    def test_frozen_with_random_weights(self, scratch, finetune, node):
        scratch.MODEL[node].NORM = finetune.MODEL[node].NORM = "FrozenBN"
        message = refusal(scratch)
        assert message.startswith(f"MODEL.{node}.NORM FrozenBN normalises nothing")
        assert "Set it to GN or SyncBN, or give weights." in message
        validate(finetune)  # has weights
        scratch.MODEL[node].NORM = "SyncBN"
        validate(scratch)


class TestFreezing:
    @pytest.mark.parametrize("freeze_at", [1, 2, 5])
    def test_random_weights(self, scratch, freeze_at):
        scratch.MODEL.BACKBONE.FREEZE_AT = freeze_at
        message = refusal(scratch)
        assert message.startswith(f"MODEL.BACKBONE.FREEZE_AT {freeze_at} would freeze")
        assert "Set FREEZE_AT to 0, or give weights." in message

    def test_first_fix(self, scratch):
        scratch.MODEL.BACKBONE.FREEZE_AT = 0
        validate(scratch)

    def test_second_fix(self, scratch):
        scratch.MODEL.BACKBONE.FREEZE_AT = 2
        scratch.MODEL.WEIGHTS = "model_final.pth"
        validate(scratch)

    def test_weights_without_freezing(self, finetune):
        finetune.MODEL.BACKBONE.FREEZE_AT = 0
        validate(finetune)


class TestWarmup:
    """The host's scheduler would end the warm-up at an already lowered rate."""

    @pytest.mark.parametrize(("warmup", "drop"), [(500, 500), (501, 500), (1000, 3)])
    def test_past_the_first_drop(self, scratch, warmup, drop):
        scratch.SOLVER.WARMUP_ITERS = warmup
        scratch.SOLVER.STEPS = (drop, 2000)
        message = refusal(scratch)
        assert f"The warm-up of {warmup} iterations" in message
        assert f"drop at {drop}." in message
        assert "RETHINK.REFERENCE_WARMUP_ITERS" in message

    def test_just_before_the_first_drop(self, scratch):
        scratch.SOLVER.WARMUP_ITERS = 499
        scratch.SOLVER.STEPS = (500, 2000)
        validate(scratch)

    def test_steps_in_any_order(self, scratch):
        scratch.SOLVER.WARMUP_ITERS = 500
        scratch.SOLVER.STEPS = (2000, 400)
        assert "drop at 400" in refusal(scratch)

    @pytest.mark.parametrize(("max_iter", "valid"), [(500, False), (501, True)])
    def test_no_drops(self, scratch, max_iter, valid):
        """Then the end of training takes the place of the first drop."""
        scratch.SOLVER.WARMUP_ITERS = 500
        scratch.SOLVER.STEPS = ()
        scratch.SOLVER.MAX_ITER = max_iter
        if valid:
            validate(scratch)
        else:
            assert "500" in refusal(scratch)

    def test_a_scheduler_without_drops(self, scratch):
        scratch.SOLVER.LR_SCHEDULER_NAME = "WarmupCosineLR"
        scratch.SOLVER.STEPS = (3,)
        validate(scratch)

    def test_through_a_schedule(self):
        """750 iterations drop at 500, where the paper's warm-up ends; one iteration more is enough."""
        path = CONFIGS / "scratch_6x.yaml"
        with pytest.raises(UserError, match=r"warm-up of 500 iterations .* drop at 500\."):
            load_config(path, opts=["RETHINK.SCHEDULE", "12000 images"])
        load_config(path, opts=["RETHINK.SCHEDULE", "12016 images"])


class TestNames:
    @pytest.mark.parametrize(
        ("key", "names"), [("AUGMENTATION", "resize, lsj"), ("DOCTOR", "stop, warn, off")]
    )
    def test_unknown(self, scratch, key, names):
        scratch.RETHINK[key] = "other"
        assert refusal(scratch) == f"RETHINK.{key} 'other' is none of: {names}."


class TestSpeed:
    @pytest.mark.parametrize("key", ["PRECISION", "MEMORY_FORMAT", "COCO_EVAL"])
    def test_unknown(self, scratch, key):
        scratch.RETHINK.SPEED[key] = "quick"
        with pytest.raises(UserError, match=rf"RETHINK\.SPEED\.{key} 'quick' is none of: \w"):
            validate(scratch)

    def test_two_precisions(self, scratch):
        scratch.RETHINK.SPEED.PRECISION = "bf16"
        validate(scratch)
        scratch.SOLVER.AMP.ENABLED = True
        with pytest.raises(UserError, match="exclude each other"):
            validate(scratch)

    @pytest.mark.parametrize("buckets", [0, 1, 3])
    def test_odd_buckets(self, scratch, buckets):
        scratch.RETHINK.SPEED.ASPECT_BUCKETS = buckets
        with pytest.raises(UserError, match="an even number of 2 or more"):
            validate(scratch)

    def test_no_image_at_once(self, scratch):
        scratch.RETHINK.SPEED.TEST_BATCH = 0
        with pytest.raises(UserError, match="1 or more"):
            validate(scratch)


class TestImages:
    def test_channels(self, scratch):
        scratch.MODEL.PIXEL_MEAN = [1.0] * 5
        assert refusal(scratch).startswith("MODEL.PIXEL_MEAN has 5 values and PIXEL_STD 3")
        scratch.MODEL.PIXEL_STD = [1.0] * 5
        validate(scratch)

    def test_two_crops(self, scratch):
        scratch.RETHINK.AUGMENTATION = "lsj"
        validate(scratch)
        scratch.INPUT.CROP.ENABLED = True
        assert "both crop" in refusal(scratch)


class TestNodesInUse:
    """A norm counts where the model has the part; the host's defaults of the other parts do not."""

    def test_mask_rcnn(self, scratch):
        assert norm_nodes(scratch) == ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")

    def test_keypoints_instead_of_masks(self, scratch):
        scratch.MODEL.MASK_ON, scratch.MODEL.KEYPOINT_ON = False, True
        assert norm_nodes(scratch) == ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_KEYPOINT_HEAD")

    def test_one_stage(self, scratch):
        scratch.MODEL.META_ARCHITECTURE = "RethinkRetinaNet"
        assert norm_nodes(scratch) == ("RESNETS", "FPN", "RETINANET")

    def test_segmentation(self, scratch):
        scratch.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
        assert norm_nodes(scratch) == ("RESNETS", "FPN", "SEM_SEG_HEAD")

    def test_vgg_is_no_resnet(self, scratch):
        scratch.MODEL.BACKBONE.NAME = "build_rethink_vgg_backbone"
        scratch.MODEL.RESNETS.NORM = "FrozenBN"  # the host's default, unused
        assert "RESNETS" not in norm_nodes(scratch)
        validate(scratch)
        scratch.MODEL.VGG.NORM = "FrozenBN"
        assert refusal(scratch).startswith("MODEL.VGG.NORM FrozenBN normalises nothing")
