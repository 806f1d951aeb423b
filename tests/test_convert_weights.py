"""tools/convert_weights.py as a user starts it, and the two files that it leaves."""

import argparse
import hashlib
import importlib.util
import logging
import shlex
import subprocess
import sys

import pytest
import torch
import torchvision
from conftest import REPOSITORY

from rethink_pretrain.checkpoint import RethinkCheckpointer
from rethink_pretrain.checkpoint.convert import NORMS
from rethink_pretrain.checkpoint.layouts import AUTO, LAYOUTS
from rethink_pretrain.checkpoint.reading import read_weights
from rethink_pretrain.config import load_config
from rethink_pretrain.engine import Trainer

TOOL = REPOSITORY / "tools" / "convert_weights.py"


def load_tool():
    spec = importlib.util.spec_from_file_location("convert_weights", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


@pytest.fixture
def convert(monkeypatch, capsys):
    """The tool in this process, which has imported all that takes seconds: exit status, stdout, stderr."""
    tool = load_tool()
    level = logging.getLogger().level

    def convert(*args):
        monkeypatch.setattr(sys, "argv", ["convert_weights.py", *map(str, args)])
        code = 0
        try:
            tool.main()
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    yield convert
    logging.getLogger().setLevel(level)


@pytest.fixture
def state():
    torch.manual_seed(0)
    return torchvision.models.resnet18().state_dict()


@pytest.fixture
def source(state, tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(state, path)
    return path


def test_from_a_momentum_encoder_to_a_detector(state, tmp_path):
    """As a process of its own, in another folder than the files; then the command that it prints."""
    source = tmp_path / "moco_v2.pth.tar"
    names = {f"module.encoder_{one}.{name}": value for one in "qk" for name, value in state.items()}
    moco = {**names, "module.queue": torch.ones(4, 8), "module.queue_ptr": torch.zeros(1)}
    torch.save({"epoch": 200, "arch": "resnet18", "state_dict": moco, "optimizer": {}}, source)
    told = ("--images", "2.56e8", "--recipe", "MoCo v2, 200 ep")
    command = [sys.executable, TOOL, source, "w/moco.pth", *told]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert said[str(source)] == f"sha256 {digest}"
    assert said["layout"] == "moco, names begin with 'module.encoder_q.'"
    assert said["network"] == "depth 18; norm BN, with statistics"
    assert said["weights"] == "w/moco.pth, 100 tensors for FPN detectors"
    assert said["dropped"] == (
        "module.encoder_k (122), num_batches_tracked (20), module.encoder_q.fc (2), module.queue (1), "
        "module.queue_ptr (1)"
    )
    assert said["overlay"] == "w/init_moco.yaml"
    assert digest[:16] in (tmp_path / "w" / "init_moco.yaml").read_text().splitlines()[0]

    told = read_weights(str(tmp_path / "w" / "moco.pth"))["pretraining"]
    assert told == {"images": 2.56e8, "recipe": "MoCo v2, 200 ep"}

    python, train, _, config, flag, overlay = shlex.split(said["use"])
    assert (python, train, flag) == ("python", "tools/train_net.py", "--overlay")
    cfg = load_config(REPOSITORY / config, [tmp_path / overlay], ["MODEL.DEVICE", "cpu"])
    checkpointer = RethinkCheckpointer(Trainer.build_model(cfg))
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=False)
    assert (checkpointer.coverage, checkpointer.loaded["unexpected"]) == (1.0, 0)
    assert checkpointer.loaded["pretraining"] == told


def test_options(convert, source, tmp_path):
    output, overlay = tmp_path / "out.pth", tmp_path / "mine.yaml"
    counts = ("--images", "10", "--instances", "20", "--pixels", "5e5")
    code, out, err = convert(source, output, "--overlay", overlay, "--norm", "FrozenBN", "--c4", *counts)
    assert (code, err) == (0, "")
    assert (
        "for C4 detectors" in out
        and f"--overlay {overlay}" in out
        and "dropped: num_batches_tracked (20), fc (2)\n" in out
    )
    assert "NORM: FrozenBN" in overlay.read_text()
    assert "finetune_1x" not in out  # which has an FPN
    read = read_weights(str(output))
    assert "roi_heads.res5.0.conv1.weight" in read["model"] and "backbone.stem.conv1.weight" in read["model"]
    told = read["pretraining"]
    assert (told["images"], told["instances"], told["pixels"]) == (10, 20, 5e5)
    assert told["recipe"].startswith("resnet18.pth (sha256 ")


def test_what_is_there_is_not_replaced(convert, source, tmp_path):
    output, overlay = tmp_path / "out.pth", tmp_path / "init_out.yaml"
    for path in (output, overlay):
        path.write_text("mine")
        code, out, err = convert(source, output)
        assert (code, out) == (1, "") and f"{path} is there already. Replace it with --force" in err
        assert path.read_text() == "mine"
        path.unlink()
    output.write_text("mine")
    assert convert(source, output, "--force")[0] == 0
    assert "pretraining" not in read_weights(str(output))
    before = output.read_bytes()
    assert convert(source, output, "--force")[0] == 0
    assert output.read_bytes() == before


def test_a_checkpoint_with_more_than_arrays(convert, state, tmp_path):
    """As the reference scripts of torchvision and timm leave them, with their arguments."""
    source = tmp_path / "checkpoint.pth"
    torch.save({"model": state, "args": argparse.Namespace(lr=1)}, source)
    code, _, err = convert(source, tmp_path / "out.pth")
    (line,) = err.splitlines()
    assert code == 1 and "holds more than arrays (argparse.Namespace)" in line and "--trust-pickle" in line
    assert convert(source, tmp_path / "out.pth", "--trust-pickle")[0] == 0


def test_names_that_the_doctor_takes_for_others(convert, source, tmp_path):
    """It would ask for BGR images."""
    code, _, err = convert(source, tmp_path / "R-50-GN.pth")
    assert code == 1 and "R-50-GN.pth: by this name the doctor knows weights of the host" in err
    (tmp_path / "torchvision").mkdir()
    assert convert(source, tmp_path / "torchvision" / "R-18.pth")[0] == 0


def test_mistakes_of_users_are_one_line(convert, source, tmp_path):
    output = tmp_path / "out.pth"
    torch.save({"blocks.0.norm1.weight": torch.ones(1)}, tmp_path / "vit.pth")
    (tmp_path / "broken.pth").write_bytes(source.read_bytes()[:1000])
    for args, words in (
        ((tmp_path / "none.pth", output), "none.pth is no file"),
        ((tmp_path / "broken.pth", output), "is no checkpoint, or a damaged one"),
        ((tmp_path / "vit.pth", output), "vit.pth: this is a network of other stages than layer1 to layer4"),
        ((source, tmp_path / "out.pkl"), "the name of the file has to end in .pth"),
        ((source, source, "--force"), "is the file to convert"),
        ((source, output, "--layout", "moco"), "no ResNet with torchvision's names of layout moco"),
        ((source, source / "out.pth"), "Cannot write"),
    ):
        code, out, err = convert(*args)
        (line,) = err.splitlines()
        assert (code, out) == (1, "") and line.startswith("error: ") and words in line
        assert not output.exists()
    for args, words in (
        (("--pixels", "5"), "need --images"),
        (("--recipe", "ours"), "need --images"),
        (("--images", "-1"), "are counts"),
        (("--images", "nan"), "are counts"),
        (("--layout", "caffe"), "invalid choice"),
    ):
        code, _, err = convert(source, output, *args)
        assert code == 2 and words in err


def test_the_tools_choices_are_the_packages():
    tool = load_tool()
    assert (AUTO, *LAYOUTS) == tool.LAYOUTS
    assert tool.NORMS == NORMS
