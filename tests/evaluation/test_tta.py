"""Box voting and heatmap averaging against hand-computed values; the merging through whole models."""

import json
from pathlib import Path

import pytest
import torch
from conftest import TOY_CONFIG
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import nn

from rethink_pretrain.config import load_config
from rethink_pretrain.errors import UserError
from rethink_pretrain.evaluation import build_evaluator
from rethink_pretrain.evaluation.tta import build_tta_model, evaluate_tta, mean_heatmaps, vote_boxes

CONFIGS = TOY_CONFIG.parent
MASKS = TOY_CONFIG
POINTS = CONFIGS / "scratch_keypoint_rcnn_R_18_FPN_gn.yaml"
CASCADE = CONFIGS / "scratch_cascade_R_18_FPN_gn.yaml"
HEIGHT, WIDTH, DETECTIONS = 64, 96, 6


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


@pytest.fixture
def points():
    """The name of a set whose five keypoints are the toy configuration's: two pairs and one in the middle."""
    name = "tta_points"
    MetadataCatalog.get(name).set(
        keypoint_names=["a", "b", "c", "d", "m"], keypoint_flip_map=[("a", "b"), ("c", "d")]
    )
    yield name
    MetadataCatalog.remove(name)


def make(config, *opts: str) -> tuple[CfgNode, nn.Module]:
    """A config with one test scale without flip, at which the resizing is the identity; a random model."""
    common = ["TEST.AUG.MIN_SIZES", f"({HEIGHT},)", "TEST.AUG.FLIP", "False", "MODEL.DEVICE", "cpu"]
    cfg = load_config(config, opts=[*common, "TEST.DETECTIONS_PER_IMAGE", str(DETECTIONS), *opts])
    torch.manual_seed(0)
    return cfg, build_model(cfg).eval()


def picture(channels: int = 3) -> torch.Tensor:
    rng = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (channels, HEIGHT, WIDTH), dtype=torch.uint8, generator=rng)


def detect(model, image: torch.Tensor) -> Instances:
    """Without the raw heatmaps, which the host's models leave beside the keypoints."""
    with torch.no_grad():
        ret = model([{"image": image, "height": HEIGHT, "width": WIDTH}])[0]["instances"]
    if ret.has("pred_keypoint_heatmaps"):
        ret.remove("pred_keypoint_heatmaps")
    return ret


def assert_same(actual: Instances, expected: Instances) -> None:
    assert len(actual) == len(expected) > 0
    assert set(actual.get_fields()) == set(expected.get_fields())
    for name, value in expected.get_fields().items():
        value, other = (getattr(v, "tensor", v) for v in (value, actual.get(name)))
        torch.testing.assert_close(other, value)


@pytest.mark.parametrize(
    "config, opts",
    [
        (MASKS, ["MODEL.MASK_ON", "False"]),
        (MASKS, []),
        (MASKS, ["RETHINK.TTA_BOX_VOTE_IOU", "0.8"]),  # NMS left no others that near
        (POINTS, ["MODEL.MASK_ON", "True"]),
        (POINTS, ["MODEL.MASK_ON", "False"]),
        (CASCADE, []),  # still off
        (CASCADE, ["RETHINK.CASCADE_ITERS", "0"]),  # on
    ],
)
def test_one_plain_scale_is_the_plain_inference(points, config, opts):
    """In boxes, scores, classes, masks and keypoints; the heatmaps are read at the same size."""
    cfg, model = make(config, "DATASETS.TEST", f"('{points}',)", *opts)
    if config == CASCADE:
        assert model.roi_heads.is_on == bool(opts)
    image = picture()
    assert_same(detect(build_tta_model(cfg, model), image), detect(model, image))


def mirrored(instances: Instances, flip_indices: list[int]) -> Instances:
    ret = Instances(instances.image_size, **instances.get_fields())
    boxes = instances.pred_boxes.clone()
    boxes.tensor[:, [0, 2]] = WIDTH - boxes.tensor[:, [2, 0]]
    ret.pred_boxes = boxes
    if ret.has("pred_masks"):
        ret.pred_masks = instances.pred_masks.flip(dims=[2])
    if ret.has("pred_keypoints"):
        ret.pred_keypoints = instances.pred_keypoints[:, flip_indices].clone()
        ret.pred_keypoints[:, :, 0] = WIDTH - ret.pred_keypoints[:, :, 0]
    return ret


def in_order(instances: Instances) -> Instances:
    """By class, and then by place."""
    boxes = instances.pred_boxes.tensor
    key = instances.pred_classes * 1e6 + boxes[:, 0] * 1e3 + boxes[:, 2] + boxes[:, 1]
    return instances[key.argsort()]


def test_flip_of_a_symmetric_image_gives_symmetric_detections(points):
    """Without NMS of the union: of two mirror images that overlap, it would keep one."""
    cfg, model = make(
        POINTS, "MODEL.MASK_ON", "True", "DATASETS.TEST", f"('{points}',)", "TEST.AUG.FLIP", "True"
    )
    cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST, cfg.TEST.DETECTIONS_PER_IMAGE = 1.0, 2 * DETECTIONS
    image = picture()
    image[:, :, WIDTH // 2 :] = image[:, :, : WIDTH // 2].flip(dims=[2])
    found = detect(build_tta_model(cfg, model), image)
    assert len(found) == 2 * DETECTIONS
    assert {"pred_masks", "pred_keypoints"} <= set(found.get_fields())
    found, other = in_order(found), in_order(mirrored(found, [1, 0, 3, 2, 4]))
    differs = (found.pred_masks != other.pred_masks).sum()
    assert differs < 0.02 * found.pred_masks.sum()  # pixels at the threshold
    found.remove("pred_masks")
    for name in found.get_fields():
        value, same = (getattr(v, "tensor", v) for v in (found.get(name), other.get(name)))
        torch.testing.assert_close(
            value, same, atol=1e-3, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )
    plain = detect(model, image)  # a random model is not symmetric by itself
    assert not torch.allclose(
        in_order(plain).pred_boxes.tensor,
        in_order(mirrored(plain, [1, 0, 3, 2, 4])).pred_boxes.tensor,
        atol=1,
    )


@pytest.mark.parametrize("config", [MASKS, POINTS])
def test_an_image_without_detections(points, config):
    nothing = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "1.0", "TEST.AUG.FLIP", "True"]
    cfg, model = make(config, "DATASETS.TEST", f"('{points}',)", *nothing)
    cfg.RETHINK.TTA_BOX_VOTE_IOU = 0.8
    image = picture()
    found, plain = detect(build_tta_model(cfg, model), image), detect(model, image)
    assert len(found) == len(plain) == 0
    assert set(found.get_fields()) == set(plain.get_fields())


def test_five_channels_of_floats():
    five = "[100.0, 100.0, 100.0, 100.0, 100.0]"
    cfg, model = make(MASKS, "MODEL.PIXEL_MEAN", five, "MODEL.PIXEL_STD", five)
    image = picture(5).float() + 0.5
    assert_same(detect(build_tta_model(cfg, model), image), detect(model, image))
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.FLIP = (48, 80), True
    found = detect(build_tta_model(cfg, model), image)
    assert len(found) == DETECTIONS and found.pred_masks.shape == (DETECTIONS, HEIGHT, WIDTH)
    assert torch.isfinite(found.pred_boxes.tensor).all()


def test_heads_come_back_after_an_error(monkeypatch):
    cfg, model = make(MASKS)
    tta = build_tta_model(cfg, model)
    monkeypatch.setattr(model, "inference", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        detect(tta, picture())
    assert model.roi_heads.mask_on


def test_evaluate_tta(short_cfg):
    """Results under tta, files in a folder of their own; at one plain scale as in the plain evaluation."""
    cfg = short_cfg
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.MAX_SIZE, cfg.TEST.AUG.FLIP = (64,), 64, False
    torch.manual_seed(0)
    model = build_model(cfg)  # in training mode, as after the last iteration
    results = evaluate_tta(cfg, model, DefaultTrainer.test)
    assert list(results) == ["tta"]
    assert model.training
    (name,) = cfg.DATASETS.TEST
    plain = DefaultTrainer.test(cfg, model, [build_evaluator(cfg, name)])
    assert list(results["tta"]) == list(plain) == ["bbox", "segm"]
    for task in plain:
        assert results["tta"][task] == pytest.approx(plain[task], nan_ok=True)
    augmented, simple = (
        json.loads((tmp / "coco_instances_results.json").read_text())
        for tmp in (Path(cfg.OUTPUT_DIR) / "inference_tta", Path(cfg.OUTPUT_DIR) / "inference")
    )
    assert len(augmented) == len(simple) > 0
    for one, other in zip(augmented, simple, strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        assert one["bbox"] == pytest.approx(other["bbox"], abs=1e-3)
    assert len(DatasetCatalog.get(name)) == len({r["image_id"] for r in simple}) == 12


def test_models_without_given_boxes_are_refused():
    with pytest.raises(UserError, match="not for Linear"):
        build_tta_model(get_cfg(), nn.Linear(1, 1))
    cfg, model = make(CONFIGS / "scratch_panoptic_R_18_FPN_gn.yaml")
    with pytest.raises(UserError, match=r"not for \w*PanopticFPN"):
        build_tta_model(cfg, model)


def test_keypoints_need_a_flip_map():
    cfg, model = make(POINTS, "DATASETS.TEST", "('tta_no_points',)")
    with pytest.raises(UserError, match=r"keypoint_flip_map in the metadata of \['tta_no_points'\]"):
        build_tta_model(cfg, model)
