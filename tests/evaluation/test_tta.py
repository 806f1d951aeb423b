"""Box voting and heatmap averaging against hand-computed values."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from rethink_pretrain.config import add_rethink_config
from rethink_pretrain.errors import UserError
from rethink_pretrain.evaluation.tta import build_tta_model, mean_heatmaps, vote_boxes


def test_vote_boxes_is_the_score_weighted_mean_within_a_class():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 10], [50, 50, 60, 60]])
    scores, classes = torch.tensor([0.75, 0.25, 0.9, 0.9]), torch.tensor([0, 0, 1, 0])
    voted = vote_boxes(boxes[:1], classes[:1], boxes, scores, classes, 0.8)  # IoU 0.8 with the second
    torch.testing.assert_close(voted, torch.tensor([[0.0, 0, 10, 0.75 * 10 + 0.25 * 8]]))
    assert torch.equal(vote_boxes(boxes[:1], classes[:1], boxes, scores, classes, 0.81), boxes[:1])


def test_mean_heatmaps_flips_columns_and_sides_back():
    plain = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]])
    mirrored = torch.tensor([[[[8.0, 6.0]], [[4.0, 2.0]]]])  # back: left [2, 4], right [6, 8]
    mean = mean_heatmaps([plain, mirrored], [False, True], [1, 0])
    torch.testing.assert_close(mean, torch.tensor([[[[1.5, 3.0]], [[4.5, 6.0]]]]))


def test_one_plain_scale_is_the_plain_inference():
    """Boxes, scores, masks and keypoints of a random model; the heatmaps are read at the same size."""
    MetadataCatalog.get("tta_points").set(keypoint_names=["l", "r"], keypoint_flip_map=[("l", "r")])
    model_zoo = pytest.importorskip("detectron2.model_zoo")  # needs pkg_resources
    cfg = model_zoo.get_config("COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml")
    add_rethink_config(cfg)
    cfg.MODEL.DEVICE, cfg.MODEL.MASK_ON, cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = "cpu", True, 2
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE = 0.0, 5
    cfg.MODEL.RESNETS.NORM = "GN"  # frozen BN with random weights overflows
    cfg.DATASETS.TEST = ("tta_points",)
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.FLIP = (64,), False
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    inputs = [{"image": torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8), "height": 64, "width": 96}]
    with torch.no_grad():
        plain, merged = model(inputs)[0]["instances"], build_tta_model(cfg, model)(inputs)[0]["instances"]
    assert len(plain) == len(merged) > 0
    torch.testing.assert_close(merged.pred_boxes.tensor, plain.pred_boxes.tensor)
    torch.testing.assert_close(merged.scores, plain.scores)
    assert torch.equal(merged.pred_masks, plain.pred_masks)
    torch.testing.assert_close(merged.pred_keypoints, plain.pred_keypoints)


def test_a_one_stage_model_is_refused():
    cfg = get_cfg()
    with pytest.raises(UserError, match="not for Linear"):
        build_tta_model(cfg, torch.nn.Linear(1, 1))
