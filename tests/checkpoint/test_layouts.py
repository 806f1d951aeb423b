"""Which ResNets are known by their names and shapes, against torchvision's and `build_resnet`'s own."""

import re

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from rethink_pretrain.checkpoint.convert import convert
from rethink_pretrain.checkpoint.layouts import expected_shapes, recognise
from rethink_pretrain.errors import UserError
from rethink_pretrain.modeling.backbone.resnet import build_resnet


def group_norm(channels):
    return nn.GroupNorm(32, channels)


class TestLayouts:
    """The names of one network in the forms in which people publish it."""

    @pytest.fixture
    def plain(self):
        torch.manual_seed(0)
        return torchvision.models.resnet18().state_dict()

    @pytest.mark.parametrize(
        ("prefix", "layout", "others"),
        [
            ("", "torchvision", ()),
            ("module.", "torchvision", ("module.projection_head.0.weight", "module.prototypes.weight")),
            ("backbone.body.", "torchvision", ("rpn.head.conv.0.0.weight", "backbone.fpn.a")),
            ("module.encoder_q.", "moco", ("module.queue", "module.encoder_k.layer1.0.conv1.weight")),
            ("module.base_encoder.", "moco", ("module.momentum_encoder.conv1.weight", "module.predictor.a")),
            ("module.encoder.", "simsiam", ("module.predictor.0.weight",)),
            ("backbone.", "backbone", ("head.mlp.0.weight",)),
            ("module.backbone.", "backbone", ("module.projector.0.weight", "module.bn.running_mean")),
        ],
    )
    def test_found_whole(self, plain, prefix, layout, others):
        expected = convert(plain).weights
        weights = {prefix + name: value for name, value in plain.items()}
        weights |= {name: torch.zeros(2) for name in others}
        converted = convert(weights)
        assert (converted.layout, converted.prefix) == (layout, prefix)
        assert converted.weights.keys() == expected.keys()
        assert all(torch.equal(converted.weights[name], value) for name, value in expected.items())
        assert {*others, f"{prefix}fc.weight"} < set(converted.dropped)
        assert len(converted.weights) + len(converted.dropped) == len(weights)

    def test_arrays(self, plain):
        arrays = {name: np.array(value) for name, value in plain.items()}
        converted = convert(arrays, "timm")
        assert converted.layout == "timm"
        assert torch.equal(converted.weights["backbone.bottom_up.stem.conv1.weight"], plain["conv1.weight"])

    def test_which_of_two(self, plain):
        two = {
            prefix + name: value for prefix in ("encoder_q.", "backbone.") for name, value in plain.items()
        }
        with pytest.raises(UserError, match=r"several backbones: .*--layout"):
            convert(two)
        assert convert(two, "moco").prefix == "encoder_q."
        with pytest.raises(UserError, match="of layout simsiam; --layout auto looks for all"):
            convert(two, "simsiam")


@pytest.mark.parametrize(
    ("name", "norm_layer"),
    [
        *((f"resnet{depth}", None) for depth in (18, 34, 50, 101, 152)),
        *(("resnext50_32x4d", None), ("resnext101_32x8d", None), ("wide_resnet50_2", None)),
        ("resnet101", group_norm),
    ],
)
def test_every_tensor_of_the_host_has_its_own(name, norm_layer):
    """Names and shapes alone, against the model that `build_resnet` makes of what was recognised."""
    with torch.device("meta"):
        state = getattr(torchvision.models, name)(norm_layer=norm_layer).state_dict()
    # Memory for one number each is enough to have the shape.
    weights = {key: torch.ones(()).expand(value.shape) for key, value in state.items()}
    converted = convert(weights)
    network = converted.network
    assert str(network.depth) in name
    with torch.device("meta"):
        resnet = build_resnet(
            network.depth,
            network.norm,
            stem_channels=network.stem_channels,
            res2_channels=network.res2_channels,
            num_groups=network.num_groups,
            width_per_group=network.width_per_group,
        )
    expected = {
        f"backbone.bottom_up.{key}": value.shape
        for key, value in resnet.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    assert {key: value.shape for key, value in converted.weights.items()} == expected


@pytest.mark.parametrize(("depth", "groups"), [(18, 1), (50, 1), (101, 32)])
def test_shapes_there_and_back(depth, groups):
    with torch.device("meta"):
        resnet = build_resnet(depth, "BN", stem_channels=32, res2_channels=96, num_groups=groups)
    state = resnet.state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items() if "num_batches" not in key}
    assert expected_shapes(recognise(shapes)) == shapes


class TestRefused:
    """Names as timm, torchvision and CLIP have them, each with one line."""

    @pytest.fixture
    def plain(self):
        with torch.device("meta"):
            state = torchvision.models.resnet50().state_dict()
        return {key: torch.ones(()).expand(value.shape) for key, value in state.items()}

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("conv1.0.weight", "stem of three convolutions"),
            ("conv2.weight", "stem of three convolutions"),
            ("layer1.0.downsample.2.weight", "average pooling in the shortcut"),
            ("layer1.0.se.fc1.weight", "attention in the blocks"),
            ("layer1.0.convs.0.weight", "split convolutions"),
            ("layer1.0.conv2.fc1.weight", "split convolutions"),
            ("layer2.0.aa.filt", "anti-aliased pooling"),
            ("maxpool.0.weight", "anti-aliased pooling"),
            ("attnpool.c_proj.weight", "CLIP's ResNet"),
            ("layer5.0.conv1.weight", "is no part of a plain ResNet"),
            ("layer1.0.conv1.bias", "is no part of the ResNet that the other names are of"),
            ("layer1.0.downsample.1.running_meen", "is no part of the ResNet that"),
        ],
    )
    def test_more_than_a_resnet(self, plain, name, words):
        with pytest.raises(UserError, match=rf"'{re.escape(name)}' .*{words}") as caught:
            convert({**plain, name: torch.ones(1)})
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            (["cls_token", "pos_embed", "blocks.0.norm1.weight"], "a Vision Transformer"),
            (["visual.attnpool.positional_embedding", "visual.layer1.0.conv1.weight"], "CLIP's ResNet"),
            (["stem.conv.weight", "stages.0.blocks.0.conv1.weight"], "other stages than layer1"),
            (["features.0.weight", "classifier.weight"], "other stages than layer1"),
            (["a\nb"], r"no ResNet with torchvision's names\. The first name in it is 'a b'"),
        ],
    )
    def test_no_resnet(self, names, words):
        with pytest.raises(UserError, match=words):
            convert({name: torch.ones(1) for name in names})

    def test_other_blocks(self, plain):
        short = {key: value for key, value in plain.items() if not key.startswith("layer1.2.")}
        with pytest.raises(UserError, match=r"\(2, 4, 6, 3\) bottlenecks are of no known depth \(18, 34"):
            convert(short)

    def test_something_is_missing(self, plain):
        del plain["layer3.1.bn2.running_var"], plain["layer4.0.downsample.0.weight"]
        with pytest.raises(UserError, match=r"2 tensors .* such as the host's 'res4\.1\.conv2\.norm"):
            convert(plain)

    @pytest.mark.parametrize(
        ("name", "shape"),
        [
            ("conv1.weight", (64, 1, 7, 7)),
            ("conv1.weight", (64, 3, 3, 3)),
            ("layer3.0.conv2.weight", (256, 8, 3, 3)),
            ("layer1.0.conv2.weight", (0, 0, 3, 3)),
            ("layer1.0.conv2.weight", (64,)),
            ("layer1.0.conv2.weight", (4, 64, 3, 3)),
            ("conv1.weight", ()),
        ],
    )
    def test_other_shapes(self, plain, name, shape):
        with pytest.raises(UserError, match=r"has the shape \(.*, not \("):
            convert({**plain, name: torch.ones(()).expand(shape)})

    def test_basic_blocks_with_groups(self):
        with torch.device("meta"):
            state = torchvision.models.resnet18().state_dict()
        weights = {key: torch.ones(()).expand(value.shape) for key, value in state.items()}
        weights["layer1.0.conv1.weight"] = torch.ones(64, 2, 3, 3)
        with pytest.raises(UserError, match=r"'layer1\.0\.conv1\.weight' has the shape .* groups"):
            convert(weights)

    def test_without_norms(self, plain):
        bare = {key: value for key, value in plain.items() if "bn" not in key and "downsample.1" not in key}
        with pytest.raises(UserError, match="has no norm"):
            convert(bare)

    @pytest.mark.parametrize("value", [torch.full((64,), torch.nan), torch.ones(64, dtype=torch.int64)])
    def test_no_numbers(self, plain, value):
        with pytest.raises(UserError, match=r"'stem\.conv1\.norm\.bias' are no finite numbers"):
            convert({**plain, "bn1.bias": value})
