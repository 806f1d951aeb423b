"""The classifier against its parts by hand, for backbones with and without FPN."""

import pytest
import torch
from conftest import REPOSITORY, TOY_CONFIG
from detectron2.modeling import build_backbone, build_model
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from rethink_pretrain.config import load_config
from rethink_pretrain.errors import UserError

VGG_CONFIG = REPOSITORY / "configs" / "toy" / "scratch_faster_rcnn_VGG16.yaml"


def classifier(config, **keys):
    cfg = load_config(config, ["classifier"], [w for pair in keys.items() for w in pair])
    cfg.MODEL.DEVICE, cfg.RETHINK.CLASSIFIER.NUM_CLASSES = "cpu", 5
    torch.manual_seed(0)
    return cfg, build_model(cfg)


def records(number, size=64):
    images = torch.randint(0, 256, (number, 3, size, size), dtype=torch.uint8)
    return [{"image": image, "label": index % 5} for index, image in enumerate(images)]


@pytest.mark.parametrize("config", [TOY_CONFIG, VGG_CONFIG], ids=["resnet", "vgg"])
def test_scores_and_loss(config):
    cfg, model = classifier(config)
    batch = records(3)
    x = torch.stack([record["image"] for record in batch]).float()
    mean, std = (torch.tensor(cfg.MODEL[f"PIXEL_{name}"]).view(3, 1, 1) for name in ("MEAN", "STD"))
    x = (x - mean) / std
    deepest = {"res5", "conv5"} & set(model.backbone.output_shape())
    features = model.backbone(x)[deepest.pop()]
    logits = features.flatten(2).mean(2) @ model.linear.weight.T + model.linear.bias
    with EventStorage() as storage:
        losses = model(batch)
        accuracy = storage.latest()["classifier/accuracy"][0]
    labels = torch.tensor([0, 1, 2])
    torch.testing.assert_close(losses["loss_cls"], F.cross_entropy(logits, labels))
    assert accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    outputs = model.eval()(batch)
    for output, row in zip(outputs, logits, strict=True):
        torch.testing.assert_close(output["scores"], row.exp() / row.exp().sum())


def test_it_has_what_the_detectors_backbone_has_below_its_fpn():
    cfg, model = classifier(TOY_CONFIG)
    theirs = build_backbone(cfg).bottom_up.state_dict()
    assert {name: v.shape for name, v in model.backbone.state_dict().items()} == {
        name: v.shape for name, v in theirs.items()
    }


def test_the_loss_starts_at_that_of_guessing():
    """The last layer starts near 0, so that all classes are about as likely: ln 5 for 5 classes."""
    _, model = classifier(TOY_CONFIG)
    with EventStorage():
        assert model(records(8))["loss_cls"].item() == pytest.approx(1.609, abs=0.35)


def test_one_class_is_none():
    cfg, _ = classifier(TOY_CONFIG)
    cfg.RETHINK.CLASSIFIER.NUM_CLASSES = 1
    with pytest.raises(UserError, match=r"NUM_CLASSES is 1; a classifier needs 2"):
        build_model(cfg)
