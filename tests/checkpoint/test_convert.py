"""Converted ResNets against torchvision's own: the same features of the same image, every weight used."""

import re
import shlex
import shutil
from types import SimpleNamespace

import pytest
import torch
import torchvision
import yaml
from conftest import REPOSITORY
from detectron2.config import get_cfg
from torch import nn

from rethink_pretrain.checkpoint import RethinkCheckpointer
from rethink_pretrain.checkpoint.convert import (
    NORMS,
    PIXEL_MEAN,
    PIXEL_STD,
    check_outputs,
    convert,
    convert_file,
    overlay_text,
    write_converted,
    write_overlay,
)
from rethink_pretrain.checkpoint.reading import read_weights
from rethink_pretrain.config import add_rethink_config, load_config
from rethink_pretrain.engine import Trainer
from rethink_pretrain.engine.doctor import STOP, check_up, examine
from rethink_pretrain.errors import UserError

FASTER_RCNN = REPOSITORY / "configs" / "extra" / "finetune_faster_rcnn_R50_gn_6x.yaml"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of torchvision's presets, for 0 to 1


def group_norm(channels):
    return nn.GroupNorm(32, channels)


def make_oracle(name, norm_layer=None):
    """torchvision's network; weights, scales and statistics all at random, none at its default."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)(norm_layer=norm_layer).eval()
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key.endswith(("running_mean", ".bias")):
                value.normal_(0, 0.1)
            elif key.endswith("running_var") or (key.endswith(".weight") and value.dim() == 1):
                value.uniform_(0.5, 1.5)
    return model


def stages_of(oracle, image):
    """torchvision's four stages. `image`: 3, H, W; 0 to 255, RGB."""
    channels = [
        (plane / 255 - mean) / std for plane, mean, std in zip(image.double(), MEAN, STD, strict=True)
    ]
    x = oracle.maxpool(oracle.relu(oracle.bn1(oracle.conv1(torch.stack(channels)[None]))))
    ret = {}
    for number in (1, 2, 3, 4):
        x = getattr(oracle, f"layer{number}")(x)
        ret[f"res{number + 1}"] = x
    return ret


def detector(folder, converted, *opts, norm=NORMS[0]):
    """Files as the tool writes them, and the detector that a run with that overlay builds and loads."""
    weights, overlay = folder / "weights.pth", folder / "init.yaml"
    write_converted(weights, converted.weights, "test")
    write_overlay(overlay, overlay_text(converted.network, str(weights), "test", norm))
    out = ("OUTPUT_DIR", str(folder / "run"), "MODEL.DEVICE", "cpu")
    cfg = load_config(FASTER_RCNN, [overlay], [*out, *opts])
    model = Trainer.build_model(cfg)
    checkpointer = RethinkCheckpointer(model)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=False)
    return cfg, model, checkpointer


@torch.no_grad()
def assert_same_features(model, oracle):
    """From the image as the data loader gives it, through the detector's own normalisation."""
    model.double().eval()
    image = torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(1))
    features = model.backbone.bottom_up(model.preprocess_image([{"image": image}]).tensor)
    expected = stages_of(oracle.double(), image)
    assert features.keys() == expected.keys()
    for name, value in expected.items():
        assert value.abs().max() > 0.1
        torch.testing.assert_close(features[name], value, rtol=1e-4, atol=1e-4 * float(value.std()))


def unfilled(checkpointer):
    """Tensors of the backbone that the file did not fill; counters of BatchNorm are none."""
    return {
        name
        for name in checkpointer.missing
        if name.startswith("backbone.bottom_up.") and not name.endswith("num_batches_tracked")
    }


class TestFeatures:
    @pytest.mark.parametrize(
        ("name", "norm_layer"),
        [("resnet18", None), ("resnet50", None), ("resnext50_32x4d", None), ("resnet50", group_norm)],
    )
    def test_equal_torchvisions(self, name, norm_layer, tmp_path):
        oracle = make_oracle(name, norm_layer)
        converted = convert(oracle.state_dict())
        cfg, model, checkpointer = detector(tmp_path, converted)
        assert (checkpointer.coverage, checkpointer.loaded["unexpected"]) == (1.0, 0)
        assert unfilled(checkpointer) == set()
        assert ("GN" if norm_layer else "SyncBN") == cfg.MODEL.RESNETS.NORM
        assert_same_features(model, oracle)

    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("freeze_at", [0, 2])
    def test_whatever_becomes_of_the_norm(self, norm, freeze_at, tmp_path):
        oracle = make_oracle("resnet18")
        opts = ("MODEL.BACKBONE.FREEZE_AT", str(freeze_at))
        _, model, checkpointer = detector(tmp_path, convert(oracle.state_dict()), *opts, norm=norm)
        assert (checkpointer.coverage, checkpointer.loaded["unexpected"]) == (1.0, 0)
        assert unfilled(checkpointer) == set()
        assert_same_features(model, oracle)

    def test_in_place_of_bgr_they_would_differ(self, tmp_path):
        """That the comparison sees the order of the channels."""
        oracle = make_oracle("resnet18")
        reverse = ("MODEL.PIXEL_MEAN", str(PIXEL_MEAN[::-1]), "MODEL.PIXEL_STD", str(PIXEL_STD[::-1]))
        model = detector(tmp_path, convert(oracle.state_dict()), *reverse)[1]
        with pytest.raises(AssertionError, match="not close"):
            assert_same_features(model, oracle)


def test_the_doctor_is_content(tmp_path, monkeypatch):
    """With what a run does before its first step, wherever there is room for its checkpoints."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
    cfg, model, checkpointer = detector(tmp_path, convert(make_oracle("resnet50").state_dict()))
    loaded = {"coverage": checkpointer.coverage, "missing": checkpointer.missing}
    check_up(cfg, model, **loaded)
    assert [finding for finding in examine(cfg, model, **loaded) if finding.severity == STOP] == []
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert all(re.match(r"backbone\.bottom_up\.(stem|res2)\.", name) for name in frozen)


def test_the_twin_from_scratch(tmp_path):
    """By the two options that the overlay names; the same network and images, from random weights."""
    converted = convert(make_oracle("resnet18").state_dict())
    cfg = detector(tmp_path, converted)[0]
    overlay = tmp_path / "init.yaml"
    (words,) = re.findall(r'options (MODEL\.WEIGHTS "" MODEL\.BACKBONE\.FREEZE_AT 0)\.', overlay.read_text())
    twin = load_config(FASTER_RCNN, [overlay], shlex.split(words))
    assert (twin.MODEL.WEIGHTS, twin.MODEL.BACKBONE.FREEZE_AT) == ("", 0)
    assert twin.MODEL.RESNETS == cfg.MODEL.RESNETS and twin.MODEL.PIXEL_MEAN == PIXEL_MEAN


def test_c4_detectors(tmp_path):
    """The host's, whose heads have res5 and which has no FPN."""
    cfg = get_cfg()  # whose default is Faster R-CNN with C4
    add_rethink_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.NORM = "BN"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    oracle = make_oracle("resnet50")
    converted = convert(oracle.state_dict(), c4=True)
    write_converted(tmp_path / "c4.pth", converted.weights, "test")
    model = Trainer.build_model(cfg).eval()
    checkpointer = RethinkCheckpointer(model)
    checkpointer.load(str(tmp_path / "c4.pth"))
    assert (checkpointer.coverage, checkpointer.loaded["unexpected"]) == (1.0, 0)
    assert not [name for name in checkpointer.missing if name.startswith(("backbone.", "roi_heads.res5."))]
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        features = oracle.layer3(
            oracle.layer2(oracle.layer1(oracle.maxpool(oracle.relu(oracle.bn1(oracle.conv1(images))))))
        )
        torch.testing.assert_close(model.backbone(images)["res4"], features, rtol=1e-4, atol=1e-4)
        last = oracle.layer4(features)
        torch.testing.assert_close(model.roi_heads.res5(features), last, rtol=1e-4, atol=1e-3)


def test_the_overlay(tmp_path):
    with torch.device("meta"):
        state = torchvision.models.resnext50_32x4d().state_dict()
    network = convert({key: torch.ones(()).expand(value.shape) for key, value in state.items()}).network
    text = overlay_text(network, "/w/ü: {x}.pth", "two\nlines # x", "FrozenBN")
    assert text.splitlines()[0] == "# Pre-trained: two lines # x"
    node = yaml.safe_load(text)
    assert node["INPUT"] == {"FORMAT": "RGB"}
    assert node["MODEL"] == {
        "WEIGHTS": "/w/ü: {x}.pth",
        "PIXEL_MEAN": pytest.approx([255 * value for value in MEAN]),
        "PIXEL_STD": pytest.approx([255 * value for value in STD]),
        "BACKBONE": {"FREEZE_AT": 2},
        "RESNETS": {
            "DEPTH": 50,
            "NORM": "FrozenBN",
            "STRIDE_IN_1X1": False,
            "STEM_OUT_CHANNELS": 64,
            "RES2_OUT_CHANNELS": 256,
            "NUM_GROUPS": 32,
            "WIDTH_PER_GROUP": 4,
        },
    }
    write_overlay(tmp_path / "init.yaml", text)
    cfg = load_config(FASTER_RCNN, [tmp_path / "init.yaml"])
    assert cfg.MODEL.WEIGHTS == "/w/ü: {x}.pth"


class TestFiles:
    def test_written_and_read(self, tmp_path):
        path = tmp_path / "deeper" / "w.pth"
        told = {"images": 1.28e8, "recipe": "ours"}
        write_converted(path, {"a": torch.ones(2)}, "me", told)
        read = read_weights(str(path))
        assert (read["__author__"], read["pretraining"]) == ("me", told)
        assert torch.equal(read["model"]["a"], torch.ones(2))
        write_converted(path, {"a": torch.ones(2)}, "me")
        assert read_weights(str(path)).keys() == {"model", "__author__"}

    def test_where_nothing_can_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        for write in (
            lambda path: write_converted(path, {}, "me"),
            lambda path: write_overlay(path, ""),
        ):
            with pytest.raises(UserError, match=r"Cannot write .*(Not a directory|File exists)"):
                write(tmp_path / "file" / "w.pth")

    def test_names(self, tmp_path):
        source, weights, overlay = (tmp_path / name for name in ("in.pth", "out.pth", "out.yaml"))
        check_outputs(source, weights, overlay, False)
        for wrong in ((tmp_path / "out.pkl", overlay), (weights, tmp_path / "out.yml")):
            with pytest.raises(UserError, match=r"has to end in \.(pth|yaml)"):
                check_outputs(source, *wrong, True)
        overlay.touch()
        with pytest.raises(UserError, match=r"out\.yaml is there already\. Replace it with --force"):
            check_outputs(source, weights, overlay, False)
        check_outputs(source, weights, overlay, True)
        source.touch()
        with pytest.raises(UserError, match="is the file to convert"):
            check_outputs(source, source, overlay, True)

    def test_tensors_do_not_share_memory_with_the_file(self, tmp_path):
        """torch would write all of what they are a part of."""
        huge = torch.zeros(10_000_000)
        huge[:64] = 1
        plain = make_oracle("resnet18").state_dict()
        converted = convert({**plain, "bn1.weight": huge[:64]})
        write_converted(tmp_path / "w.pth", converted.weights, "test")
        numbers = sum(value.numel() for value in converted.weights.values())
        assert (tmp_path / "w.pth").stat().st_size < 4.5 * numbers

    def test_only_the_name_of_the_file_tells(self, tmp_path):
        path = tmp_path / "resnetblur50-84f4748f.pth"
        torch.save(make_oracle("resnet18").state_dict(), path)
        with pytest.raises(UserError, match=r"resnetblur50-\w+\.pth: by its name \(resnetblur\)"):
            convert_file(str(path))
        path = path.rename(tmp_path / "renamed.pth")
        assert convert_file(str(path)).network.depth == 18

    @pytest.mark.parametrize("name", ["backbone.bottom_up.stem.conv1.weight", "res2.0.conv1.weight"])
    def test_the_hosts_own_form(self, tmp_path, name):
        path = tmp_path / "own.pth"
        torch.save({"model": {name: torch.ones(1)}}, path)
        with pytest.raises(UserError, match=r"own\.pth: MODEL\.WEIGHTS takes this file as it is"):
            convert_file(str(path))
