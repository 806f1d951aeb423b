"""tools/doctor.py as a user starts it."""

import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY, TOY_CONFIG
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_model

from rethink_pretrain.config import load_config

TOOL = str(REPOSITORY / "tools" / "doctor.py")
FINETUNE = str(REPOSITORY / "configs" / "finetune_2x.yaml")


def run_doctor(*args):
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, TOOL, *args], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_healthy():
    done = run_doctor("--config-file", str(TOY_CONFIG))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["part", "parameters", "trained", "norm", "weights"]
    assert lines[-1] == "healthy: the doctor found nothing."


def test_weights_that_do_not_fit_without_loading_them():
    opts = ("MODEL.PIXEL_STD", "[57.375, 57.12, 58.395]")
    done = run_doctor("--config-file", FINETUNE, "--no-weights", "--num-gpus", "8", *opts)
    assert done.returncode == 1 and done.stderr == ""
    assert "is not loaded (--no-weights)" in done.stdout.splitlines()[0]
    assert done.stdout.splitlines()[-1].startswith("stop: MODEL.PIXEL_STD is [57.375, 57.12, 58.395], but")


@pytest.mark.slow
def test_loaded_weights(tmp_path):
    """Of a run: they fill all. Of another width: not the stem, which FREEZE_AT 2 freezes."""
    cfg = load_config(TOY_CONFIG)
    cfg.MODEL.DEVICE = "cpu"
    DetectionCheckpointer(build_model(cfg), str(tmp_path)).save("toy")
    opts = ("MODEL.WEIGHTS", str(tmp_path / "toy.pth"), "MODEL.BACKBONE.FREEZE_AT", "2")
    done = run_doctor("--config-file", str(TOY_CONFIG), *opts)
    assert done.returncode == 0, done.stdout + done.stderr
    table = [line.split() for line in done.stdout.split("\n\n")[0].splitlines()]
    assert table[1] == ["stem", "4,768", "0", "GN", "file"] and table[-1][-1] == "file"

    done = run_doctor("--config-file", str(TOY_CONFIG), *opts, "MODEL.RESNETS.STEM_OUT_CHANNELS", "64")
    # 3 of the stem, 3 of a shortcut that 32 channels do not need, and the convolution beside it.
    assert done.returncode == 1 and "stop: 7 parameters are frozen and hold random" in done.stdout


@pytest.mark.slow
def test_weights_that_are_not_there_are_one_line(tmp_path):
    done = run_doctor("--config-file", str(TOY_CONFIG), "MODEL.WEIGHTS", str(tmp_path / "none.pth"))
    assert done.returncode == 1 and "none.pth" in done.stderr
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


def test_a_mistake_is_one_line():
    done = run_doctor("--config-file", str(TOY_CONFIG), "--num-gpus", "3")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == "error: SOLVER.IMS_PER_BATCH 8 does not divide by --num-gpus 3.\n"
