"""RETHINK.SPEED's switches of layers, from the config to the model."""

from pathlib import Path

import pytest
from detectron2.modeling.poolers import ROIPooler

from rethink_pretrain.config import load_config
from rethink_pretrain.engine import Trainer
from rethink_pretrain.layers.fast_conv import FastConv2d
from rethink_pretrain.layers.roi_align import PixelSumROIAlign

TOY = Path(__file__).parents[2] / "configs" / "toy" / "scratch_mask_rcnn_R_18_FPN_gn.yaml"


def build(overlays=(), opts=()):
    return Trainer.build_model(load_config(TOY, overlays, [*opts, "MODEL.DEVICE", "cpu"]))


def fast_convolutions(model):
    return sum(isinstance(module, FastConv2d) for module in model.modules())


def fast_poolers(model):
    poolers = [module for module in model.modules() if isinstance(module, ROIPooler)]
    return [isinstance(level, PixelSumROIAlign) for pooler in poolers for level in pooler.level_poolers]


@pytest.mark.parametrize("is_on", [True, False])
def test_roi_align(is_on):
    found = fast_poolers(build(opts=["RETHINK.SPEED.FAST_ROI_ALIGN", str(is_on)]))
    assert found and set(found) == {is_on}


def test_the_fast_overlay_asks_for_fast_convolutions():
    plain, fast = build(), build(["fast"])
    assert not fast_convolutions(plain)
    assert fast_convolutions(fast) > 10
    assert plain.state_dict().keys() == fast.state_dict().keys()
