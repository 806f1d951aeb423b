"""What weight files fill, and how a first convolution of 3 channels serves N."""

import hashlib
import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from PIL import Image
from torch import nn

from rethink_pretrain.checkpoint import RethinkCheckpointer, first_conv, inflate_first_conv
from rethink_pretrain.config import load_config
from rethink_pretrain.data import list_images_of_dataset, measure_pixels, register_coco
from rethink_pretrain.engine import Trainer
from rethink_pretrain.errors import UserError

CONFIG = Path(__file__).parents[2] / "configs" / "toy" / "scratch_mask_rcnn_R_18_FPN_gn.yaml"
CAFFE2_PARTS = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}


def make_cfg(channels: int = 3, *opts: object) -> CfgNode:
    """A thin R50-FPN with GN in the backbone, the heads as in the toy config."""
    cfg = load_config(CONFIG)
    cfg.MODEL.DEVICE = "cpu"
    resnet = cfg.MODEL.RESNETS
    resnet.DEPTH, resnet.STEM_OUT_CHANNELS, resnet.RES2_OUT_CHANNELS, resnet.WIDTH_PER_GROUP = 50, 32, 64, 32
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [100.0] * channels, [1.0] * channels
    cfg.merge_from_list(list(opts))
    return cfg


@pytest.fixture(scope="module")
def source() -> nn.Module:
    torch.manual_seed(1)
    return build_model(make_cfg())


def make_model(channels: int = 3, *opts: object) -> nn.Module:
    torch.manual_seed(2)
    return build_model(make_cfg(channels, *opts))


def caffe2_name(name: str) -> str:
    """ "res2.0.conv1.norm.weight" -> "res2_0_branch2a_gn_s", as in Detectron's ImageNet files with GN."""
    *place, kind = name.split(".")
    is_norm = place[-1] == "norm"
    place = [part for part in place if part not in ("norm", "stem")]
    if place[0].startswith("res"):
        place[-1] = CAFFE2_PARTS[place[-1]]
    suffix = {"weight": "s" if is_norm else "w", "bias": "b"}[kind]
    return "_".join([*place, "gn" if is_norm else "", suffix]).replace("__", "_")


def write_caffe2(path: Path, model: nn.Module) -> None:
    blobs = {caffe2_name(key): value.numpy() for key, value in model.backbone.bottom_up.state_dict().items()}
    blobs |= {"pred_w": np.zeros((1000, 1024), np.float32), "pred_b": np.zeros(1000, np.float32)}
    blobs |= {"conv1_w_momentum": np.zeros(1, np.float32)}
    assert {"conv1_w", "conv1_gn_s", "conv1_gn_b", "res2_0_branch1_w", "res5_2_branch2c_gn_b"} <= blobs.keys()
    path.write_bytes(pickle.dumps(blobs))


def filled_alike(model: nn.Module, source: nn.Module, prefix: str) -> bool:
    own, other = model.state_dict(), source.state_dict()
    return all(torch.equal(own[name], other[name]) for name in own if name.startswith(prefix))


def numel(model: nn.Module, prefix: str = "") -> int:
    return sum(value.numel() for name, value in model.named_parameters() if name.startswith(prefix))


def test_caffe2_file_with_gn_fills_the_backbone(tmp_path, source):
    path = tmp_path / "R-50-GN.pkl"
    write_caffe2(path, source)
    model = make_model()
    checkpointer = RethinkCheckpointer(model)
    checkpointer.load(str(path))
    assert filled_alike(model, source, "backbone.bottom_up.")
    assert checkpointer.coverage == 1.0
    assert not any(name.startswith("backbone.bottom_up.") for name in checkpointer.missing)
    assert "backbone.fpn_lateral2.weight" in checkpointer.missing
    loaded = checkpointer.loaded
    assert loaded["file"] == str(path)
    assert loaded["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded["matched"] == len(source.backbone.bottom_up.state_dict())
    assert (loaded["unexpected"], loaded["first_unexpected"]) == (2, ["linear.bias", "linear.weight"])
    assert loaded["missing"] == len(checkpointer.missing)
    assert loaded["inflated"] is False


def test_coverage_counts_parameters_of_the_wrong_shape_as_missing(tmp_path, source):
    path = tmp_path / "R-50-GN.pkl"
    write_caffe2(path, source)
    blobs = pickle.loads(path.read_bytes())
    blobs["res5_2_branch2b_w"] = blobs["res5_2_branch2b_w"][:, :1]  # another shape
    del blobs["res2_0_branch1_w"]
    path.write_bytes(pickle.dumps(blobs))
    checkpointer = RethinkCheckpointer(make_model())
    checkpointer.load(str(path))
    bottom_up = source.backbone.bottom_up
    lost = bottom_up.res5[2].conv2.weight.numel() + bottom_up.res2[0].shortcut.weight.numel()
    assert checkpointer.coverage == pytest.approx(1 - lost / numel(source, "backbone.bottom_up."))
    assert "backbone.bottom_up.res5.2.conv2.weight" in checkpointer.missing


def test_file_of_another_model_covers_nothing(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"model": {"encoder.0.weight": torch.zeros(3)}}, path)
    checkpointer = RethinkCheckpointer(make_model())
    checkpointer.load(str(path))
    assert checkpointer.coverage == 0.0
    assert checkpointer.loaded["first_unexpected"] == ["encoder.0.weight"]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_own_checkpoint_fills_everything(tmp_path, source, prefix):
    path = tmp_path / "model.pth"
    torch.save({"model": {prefix + name: value for name, value in source.state_dict().items()}}, path)
    model = make_model()
    checkpointer = RethinkCheckpointer(model)
    checkpointer.load(str(path))
    assert filled_alike(model, source, "")
    assert checkpointer.coverage == 1.0
    assert checkpointer.missing == frozenset()
    assert checkpointer.loaded["unexpected"] == 0


def test_predictors_of_another_number_of_classes_do_not_count(tmp_path, source):
    path = tmp_path / "model.pth"
    torch.save(source.state_dict(), path)  # without "model", as torchvision saves
    model = make_model(3, "MODEL.ROI_HEADS.NUM_CLASSES", 7)
    checkpointer = RethinkCheckpointer(model)
    checkpointer.load(str(path))
    assert checkpointer.coverage == 1.0
    assert "roi_heads.box_predictor.cls_score.weight" in checkpointer.missing


def test_heads_missing_from_a_file_of_a_whole_model_do_count(tmp_path, source):
    path = tmp_path / "model.pth"
    state = {key: value for key, value in source.state_dict().items() if "mask_head" not in key}
    torch.save({"model": state}, path)
    checkpointer = RethinkCheckpointer(make_model())
    checkpointer.load(str(path))
    expected = 1 - numel(source, "roi_heads.mask_head.") / numel(source)
    assert checkpointer.coverage == pytest.approx(expected)


def test_file_with_matching_heuristics_and_suffix_names(tmp_path, source):
    """As tools/convert-torchvision-to-d2.py of the host writes them."""
    path = tmp_path / "r50.pkl"
    state = {key: value.numpy() for key, value in source.backbone.bottom_up.state_dict().items()}
    path.write_bytes(pickle.dumps({"model": state, "__author__": "x", "matching_heuristics": True}))
    model = make_model()
    checkpointer = RethinkCheckpointer(model)
    checkpointer.load(str(path))
    assert checkpointer.coverage == 1.0
    assert filled_alike(model, source, "backbone.bottom_up.")


def test_fills_what_the_host_fills(tmp_path, source):
    path = tmp_path / "R-50-GN.pkl"
    write_caffe2(path, source)
    own, host = make_model(), make_model()
    RethinkCheckpointer(own).load(str(path))
    DetectionCheckpointer(host).load(str(path))
    assert filled_alike(own, host, "")


@pytest.mark.parametrize("channels", [1, 2, 5])
@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_inflated_weights_answer_a_gray_image_alike(tmp_path, source, caplog, channels, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pkl":
        write_caffe2(path, source)
    else:
        torch.save({"model": source.state_dict()}, path)
    model = make_model(channels)
    checkpointer = RethinkCheckpointer(model)
    with caplog.at_level(logging.INFO):
        checkpointer.load(str(path))
    assert checkpointer.coverage == 1.0
    assert checkpointer.loaded["inflated"] is True
    assert sum("with the mean of the three" in record.getMessage() for record in caplog.records) == 1
    gray = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        stems = [
            one.backbone.bottom_up.stem(gray.expand(-1, number, -1, -1))
            for one, number in ((model, channels), (source, 3))
        ]
    torch.testing.assert_close(stems[0], stems[1], rtol=1e-4, atol=1e-5)
    # Closed form: the sum over the file's channels, shared equally.
    weight = model.backbone.bottom_up.stem.conv1.weight
    expected = source.backbone.bottom_up.stem.conv1.weight.sum(1) / channels
    for channel in range(channels):
        torch.testing.assert_close(weight[:, channel], expected)


def test_resuming_keeps_iteration_and_weights_of_five_channels(tmp_path):
    model = make_model(5)
    counter = nn.Linear(1, 1)
    saving = RethinkCheckpointer(model, str(tmp_path), counter=counter)
    saving.save("model_0000001", iteration=1)
    saving.wait()
    other, other_counter = make_model(5), nn.Linear(1, 1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    checkpointer = RethinkCheckpointer(other, str(tmp_path), counter=other_counter)
    extra = checkpointer.resume_or_load("absent.pth", resume=True)
    assert extra["iteration"] == 1
    assert filled_alike(other, model, "")
    assert torch.equal(other_counter.weight, counter.weight)
    assert (checkpointer.coverage, checkpointer.loaded["inflated"]) == (1.0, False)


def test_no_weights_leave_nothing_known():
    checkpointer = RethinkCheckpointer(make_model())
    assert checkpointer.load("") == {}
    assert (checkpointer.coverage, checkpointer.missing, checkpointer.loaded) == (None, None, {})


@pytest.mark.parametrize("name", ["weights.pth", "weights.pkl"])
@pytest.mark.parametrize("content", [b"no checkpoint", b"", b"\x80\x04"])
def test_damaged_file_is_the_users_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        RethinkCheckpointer(nn.Conv2d(3, 4, 1)).load(str(tmp_path / name))


def test_first_conv_is_known_by_its_place_not_by_its_channels():
    """FPN registers its own convolutions before the backbone, and 64 input channels are in res2 as well."""
    name, conv = first_conv(make_model(64))
    assert name == "backbone.bottom_up.stem.conv1"
    assert conv.in_channels == 64
    assert first_conv(nn.Linear(1, 1)) is None


def test_several_candidates_are_the_users_error():
    model = nn.Sequential(nn.Conv2d(5, 4, 3))
    state = {"a.weight": torch.zeros(4, 3, 3, 3), "b.weight": torch.zeros(4, 3, 3, 3)}
    with pytest.raises(UserError, match=r"a\.weight, b\.weight fit 0\.weight"):
        inflate_first_conv(model, state)
    named = {**state, "0.weight": torch.ones(4, 3, 3, 3)}
    assert inflate_first_conv(model, named)
    torch.testing.assert_close(named["0.weight"], torch.full((4, 5, 3, 3), 3 / 5))
    assert named["a.weight"].shape == (4, 3, 3, 3)


@pytest.fixture(scope="module")
def five_channels(datasets, tmp_path_factory) -> str:
    """The toy training set as 16-bit images of five channels; its name."""
    root = tmp_path_factory.mktemp("five_channels")
    listed = json.loads((datasets / "toy" / "train.json").read_text())
    for image in listed["images"]:
        pixels = np.asarray(Image.open(datasets / "toy" / "train" / image["file_name"]).convert("RGB"))
        pixels = pixels.astype(np.uint16) * 257  # 255 becomes 65535
        image["file_name"] = f"{image['id']}.npy"
        np.save(root / image["file_name"], np.concatenate([pixels, pixels[:, :, :2] // 2], axis=2))
    (root / "train.json").write_text(json.dumps(listed))
    register_coco("five_channels_train", root / "train.json", root)
    return "five_channels_train"


@pytest.mark.parametrize("arm", ["scratch", "pretrained"])
@pytest.mark.parametrize("augmentation", ["resize", "lsj"])
def test_sixteen_bits_and_five_channels_train(short_cfg, five_channels, tmp_path, arm, augmentation):
    cfg = short_cfg
    cfg.defrost()
    three = Trainer.build_model(cfg)
    files = list_images_of_dataset(five_channels)
    statistics = measure_pixels(list(files.values()), "RAW")
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (five_channels,), ()
    cfg.INPUT.FORMAT = "RAW"
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 4, ()
    cfg.RETHINK.AUGMENTATION, cfg.RETHINK.LSJ_SIZE = augmentation, 64
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = list(statistics.mean), list(statistics.std)
    cfg.OUTPUT_DIR = str(tmp_path)
    if arm == "pretrained":
        torch.save({"model": three.state_dict()}, tmp_path / "three.pth")
        cfg.MODEL.WEIGHTS = str(tmp_path / "three.pth")
    trainer = Trainer(cfg)
    trainer.resume_or_load(False)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    if arm == "pretrained":
        checkpointer = trainer.checkpointer
        assert checkpointer.loaded["inflated"]
        # The mean and deviation of the pixels are the config's, not the file's.
        torch.testing.assert_close(trainer.model.pixel_mean.flatten(), torch.tensor(statistics.mean))
        assert checkpointer.coverage == 1.0
    trainer.train()
    losses = [
        json.loads(line).get("total_loss") for line in (tmp_path / "metrics.json").read_text().splitlines()
    ]
    assert trainer.iter == cfg.SOLVER.MAX_ITER
    assert np.isfinite([loss for loss in losses if loss is not None]).all()
    weight = trainer.model.backbone.bottom_up.stem.conv1.weight
    assert weight.shape[1] == 5
    assert not torch.equal(weight, before["backbone.bottom_up.stem.conv1.weight"])
