"""tools/export_model.py as a user starts it, and the file that it leaves."""

import argparse
import hashlib
import importlib.util
import json
import logging
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import REPOSITORY, SHORT_RUN, TOY_CONFIG

from rethink_pretrain.checkpoint import RethinkCheckpointer
from rethink_pretrain.checkpoint.export import read_about
from rethink_pretrain.checkpoint.reading import read_weights
from rethink_pretrain.config import load_config
from rethink_pretrain.engine import Trainer
from rethink_pretrain.engine.export_model import export_model, find_checkpoint
from rethink_pretrain.errors import UserError

SESSION = {"commit": "abc123+", "versions": {"torch": "2.9.0"}, "seed": 7}


TOOL = REPOSITORY / "tools" / "export_model.py"


@pytest.fixture
def export(monkeypatch, capsys):
    """The tool in this process, which has imported all that takes seconds: exit status, stdout, stderr."""
    spec = importlib.util.spec_from_file_location("export_model", TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    level = logging.getLogger().level

    def export(*args):
        monkeypatch.setattr(sys, "argv", ["export_model.py", *map(str, args)])
        code = 0
        try:
            tool.main()
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    yield export
    logging.getLogger().setLevel(level)


def build(cfg):
    cfg.MODEL.DEVICE = "cpu"
    torch.manual_seed(len(cfg.OUTPUT_DIR))
    return Trainer.build_model(cfg)


@pytest.fixture
def cfg(datasets):
    return load_config(TOY_CONFIG, opts=SHORT_RUN)


@pytest.fixture
def run(cfg, tmp_path):
    """The folder of a run with two checkpoints."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(cfg.dump())
    (folder / "run.json").write_text(json.dumps({"sessions": [{}, SESSION]}))
    model = build(cfg)
    for iteration, name in ((2, "model_0000002.pth"), (5, "model_final.pth")):
        with torch.no_grad():
            model.backbone.bottom_up.stem.conv1.weight += 1
        torch.save({"model": model.state_dict(), "optimizer": {}, "iteration": iteration}, folder / name)
    (folder / "last_checkpoint").write_text("model_final.pth")
    return folder


def weights_of(path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_exported_and_loaded_again(run, cfg, tmp_path):
    """As a process of its own."""
    output = tmp_path / "deeper" / "model.safetensors"
    command = [sys.executable, TOOL, "--run", run, "--output", output]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    source = run / "model_final.pth"
    assert_same(read_weights(str(output))["model"], weights_of(source))

    about = read_about(output)
    assert (about["run"], about["iteration"], about["commit"]) == ("run", "5", "abc123+")
    assert about["source"] == "model_final.pth"
    assert about["source_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert json.loads(about["versions"]) == SESSION["versions"]
    names = [category["name"] for category in json.loads(about["categories"])]
    assert len(names) == 8 and "striped disc" in names
    assert yaml.safe_load(about["config"])["SOLVER"]["MAX_ITER"] == cfg.SOLVER.MAX_ITER

    model = build(cfg)
    number = sum(parameter.numel() for parameter in model.parameters())
    megabytes = output.stat().st_size / 1e6
    assert done.stdout == f"{output}: {number:,} parameters of {source}, {megabytes:.1f} MB\n"
    assert megabytes == pytest.approx(4e-6 * number, rel=0.1)

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    checkpointer = RethinkCheckpointer(model)
    checkpointer.load(str(output))
    assert (checkpointer.coverage, checkpointer.missing) == (1.0, frozenset())
    assert checkpointer.loaded["unexpected"] == 0
    assert_same(model.state_dict(), weights_of(source))


def test_the_config_in_the_file_builds_the_model(run, cfg, tmp_path):
    """All that somebody has who is given this one file."""
    output = tmp_path / "model.safetensors"
    export_model(cfg, str(run / "model_final.pth"), output)
    (tmp_path / "config.yaml").write_text(read_about(output)["config"])
    model = build(load_config(tmp_path / "config.yaml"))
    assert read_weights(str(output))["model"].keys() == model.state_dict().keys()
    assert read_about(output).keys() == {
        "format",
        "config",
        "categories",
        "source",
        "source_sha256",
        "iteration",
    }


def test_another_checkpoint_and_config_with_weights(export, run, tmp_path):
    output, again = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    code, out, err = export("--run", run, "--checkpoint", "model_0000002.pth", "--output", output)
    assert (code, err) == (0, "") and "model_0000002.pth" in out
    assert read_about(output)["iteration"] == "2"
    args = ("--config-file", TOY_CONFIG, "--weights", output, "--output", again, *SHORT_RUN)
    assert export(*args)[0] == 0
    assert_same(read_weights(str(again))["model"], weights_of(run / "model_0000002.pth"))


def test_a_checkpoint_with_more_than_arrays(export, run, tmp_path):
    """As some trainers leave them, with their arguments."""
    path = run / "model_final.pth"
    torch.save({"model": weights_of(path), "args": argparse.Namespace(lr=1)}, path)
    args = ("--run", run, "--output", tmp_path / "model.safetensors")
    code, _, err = export(*args)
    (line,) = err.splitlines()
    assert code == 1 and "holds more than arrays (argparse.Namespace)" in line and "--trust-pickle" in line
    assert export(*args, "--trust-pickle")[0] == 0
    about = read_about(tmp_path / "model.safetensors")
    assert yaml.safe_load(about["config"])["RETHINK"]["TRUST_PICKLE"] is False


def test_which_checkpoint(run):
    assert find_checkpoint(run) == str(run / "model_final.pth")
    assert find_checkpoint(run, "model_0000002.pth") == str(run / "model_0000002.pth")
    assert find_checkpoint(run, "/elsewhere/a.pth") == "/elsewhere/a.pth"
    (run / "model_final.pth").write_bytes(b"cut off")
    assert find_checkpoint(run) == str(run / "model_0000002.pth")
    (run / "model_0000002.pth").unlink()
    (run / "model_final.pth").unlink()
    with pytest.raises(UserError, match="holds no whole checkpoint"):
        find_checkpoint(run)


def test_what_is_there_is_not_replaced(run, cfg, tmp_path):
    output = tmp_path / "model.safetensors"
    output.write_text("mine")
    with pytest.raises(UserError, match="Replace it with --force"):
        export_model(cfg, str(run / "model_final.pth"), output)
    assert output.read_text() == "mine"
    export_model(cfg, str(run / "model_final.pth"), output, force=True)
    assert "model" in read_weights(str(output))


def test_weights_of_another_model(run, cfg, tmp_path):
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 3
    with pytest.raises(UserError, match=r"leaves \d+ parameters of the model random, such as roi_heads"):
        export_model(cfg, str(run / "model_final.pth"), tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("record", ["[]", "{}", '{"sessions": []}', '{"sessions": [{"commit": 1}]}'])
def test_a_record_that_says_little(run, cfg, tmp_path, record):
    (run / "run.json").write_text(record)
    output = tmp_path / "model.safetensors"
    export_model(cfg, str(run / "model_final.pth"), output, run=run)
    assert read_about(output)["run"] == "run" and "commit" not in read_about(output)


def test_mistakes_of_users_are_one_line(export, run, tmp_path):
    code, out, err = export("--run", run, "--output", tmp_path / "model.pth")
    (line,) = err.splitlines()
    assert (code, out) == (1, "") and line.startswith("error: ") and "has to end in .safetensors" in line
    for args in (["--run", "a", "--weights", "b"], [], ["--config-file", "a", "--checkpoint", "b"]):
        code, _, err = export(*args, "--output", "a.safetensors")
        assert code == 2 and "error: give either --run, or" in err
    code, _, err = export("--config-file", "a", "--weights", "b", "--checkpoint", "c", "--output", "d")
    assert code == 2 and "--checkpoint is one of a --run" in err
    code, _, err = export("--run", run, "--output", "a.safetensors", "--wieghts", "x")
    assert code == 2 and "unrecognized arguments: --wieghts" in err
