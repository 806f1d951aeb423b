"""The switched cascade against the host's cascade when on, and against the host's plain heads when off."""

import pytest
import torch
from conftest import TOY_CONFIG
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import nn

from rethink_pretrain.config import load_config

CASCADE = ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True", "MODEL.DEVICE", "cpu"]
NEW_STAGES = ("roi_heads.box_head.1", "roi_heads.box_head.2", "roi_heads.box_predictor.1")
NEW_STAGES += ("roi_heads.box_predictor.2",)


def make_cfg(name: str, cascade_iters: int = 0) -> CfgNode:
    opts = ["MODEL.ROI_HEADS.NAME", name, "RETHINK.CASCADE_ITERS", str(cascade_iters)]
    return load_config(TOY_CONFIG, opts=[*CASCADE, *opts])


def make_model(name: str, cascade_iters: int = 0) -> nn.Module:
    torch.manual_seed(0)
    return build_model(make_cfg(name, cascade_iters))


def make_images() -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (3, 96, 128), generator=generator).to(torch.uint8)
    instances = Instances((96, 128))
    boxes = torch.tensor([[10.0, 10, 50, 60], [60, 20, 110, 80]])
    instances.gt_boxes = Boxes(boxes)
    instances.gt_classes = torch.tensor([0, 7])
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].double().numpy()
    instances.gt_masks = PolygonMasks([[polygon] for polygon in corners])
    return [{"image": image, "height": 96, "width": 128, "instances": instances}]


def losses_of(model: nn.Module) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)  # the sampling of anchors and proposals
    with EventStorage():
        return model.train()(make_images())


def values(losses: dict[str, torch.Tensor]) -> dict[str, float]:
    return {name: loss.item() for name, loss in losses.items()}


def predictions_of(model: nn.Module) -> Instances:
    with torch.no_grad():
        (output,) = model.eval()(make_images())
    return output["instances"]


def assert_same_predictions(ours: Instances, host: Instances) -> None:
    assert len(ours) == len(host) > 0
    torch.testing.assert_close(ours.pred_boxes.tensor, host.pred_boxes.tensor)
    torch.testing.assert_close(ours.scores, host.scores)
    assert torch.equal(ours.pred_masks, host.pred_masks)


def trained(model: nn.Module) -> nn.Module:
    """Predictors with larger weights, so that scores pass the threshold and boxes move."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "box_predictor" in name:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


class TestOn:
    """CASCADE_ITERS 0: the host's cascade, weight by weight."""

    @pytest.fixture(scope="class")
    @classmethod
    def models(cls) -> tuple[nn.Module, nn.Module]:
        ours, host = trained(make_model("SwitchedCascadeROIHeads")), make_model("CascadeROIHeads")
        found = host.load_state_dict(ours.state_dict(), strict=False)
        assert (found.missing_keys, found.unexpected_keys) == ([], ["roi_heads.cascade_on"])
        return ours, host

    def test_losses(self, models):
        ours, host = (values(losses_of(model)) for model in models)
        assert ours == pytest.approx(host, rel=1e-6)
        assert {"loss_cls_stage0", "loss_cls_stage1", "loss_box_reg_stage2", "loss_mask"} <= ours.keys()

    def test_predictions(self, models):
        assert_same_predictions(*(predictions_of(model) for model in models))


class TestOff:
    """Before the switch: a plain Mask R-CNN with the same class-agnostic regression."""

    @pytest.fixture(scope="class")
    @classmethod
    def models(cls) -> tuple[nn.Module, nn.Module]:
        ours, host = trained(make_model("SwitchedCascadeROIHeads", 10)), make_model("StandardROIHeads")
        state = {
            name.replace("box_head.0.", "box_head.").replace("box_predictor.0.", "box_predictor."): value
            for name, value in ours.state_dict().items()
            if not name.startswith(NEW_STAGES) and name != "roi_heads.cascade_on"
        }
        host.load_state_dict(state, strict=True)
        return ours, host

    def test_losses(self, models):
        ours, host = (values(losses_of(model)) for model in models)
        assert {name.replace("_stage0", ""): loss for name, loss in ours.items()} == pytest.approx(
            host, rel=1e-6
        )

    def test_predictions(self, models):
        assert_same_predictions(*(predictions_of(model) for model in models))

    def test_idle_stages_have_zero_gradients(self, models):
        """Zero, not None: distributed training waits for every gradient."""
        ours, _ = models
        ours.zero_grad()
        sum(losses_of(ours).values()).backward()
        idle = {name: p.grad for name, p in ours.named_parameters() if name.startswith(NEW_STAGES)}
        assert len(idle) == 2 * (5 + 4)  # convolution, GN x 2, FC x 2; two linear layers
        assert all(gradient is not None and not gradient.any() for gradient in idle.values())
        rest = [p.grad for name, p in ours.named_parameters() if not name.startswith(NEW_STAGES)]
        assert all(gradient is not None and gradient.any() for gradient in rest)


class TestSwitch:
    def test_shared_weights_stay_and_new_stages_are_copies(self):
        model = make_model("SwitchedCascadeROIHeads", 10)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        assert set(values(losses_of(model))) >= {"loss_cls_stage0"}
        model.roi_heads.turn_on()
        after = model.state_dict()
        for name, value in after.items():
            if name.startswith(NEW_STAGES):
                first = name.replace("_head.1", "_head.0").replace("_head.2", "_head.0")
                first = first.replace("_predictor.1", "_predictor.0").replace("_predictor.2", "_predictor.0")
                assert torch.equal(value, before[first]), name
            elif name != "roi_heads.cascade_on":
                assert torch.equal(value, before[name]), name

    def test_new_stages_train(self):
        model = make_model("SwitchedCascadeROIHeads", 10)
        model.roi_heads.turn_on()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        sum(losses_of(model).values()).backward()
        optimizer.step()
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
        assert changed >= {name for name, _ in model.named_parameters() if name.startswith(NEW_STAGES)}

    def test_a_second_call_changes_nothing(self):
        model = make_model("SwitchedCascadeROIHeads", 10)
        model.roi_heads.turn_on()
        with torch.no_grad():
            model.roi_heads.box_head[1].fc1.bias.fill_(3.0)
        model.roi_heads.turn_on()
        assert (model.roi_heads.box_head[1].fc1.bias == 3.0).all()

    @pytest.mark.parametrize("on", [False, True])
    def test_a_checkpoint_knows_the_state(self, on):
        model, other = make_model("SwitchedCascadeROIHeads", 10), make_model("SwitchedCascadeROIHeads")
        if on:
            model.roi_heads.turn_on()
        other.load_state_dict(model.state_dict())
        assert bool(other.roi_heads.cascade_on) is on
        assert ("loss_cls_stage2" in losses_of(other)) is on
