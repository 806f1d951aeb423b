"""The tool that measures PIXEL_MEAN and PIXEL_STD, as a user runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

from rethink_pretrain.config import load_config

REPOSITORY = Path(__file__).resolve().parents[1]
TOY_CONFIG = REPOSITORY / "configs" / "toy" / "scratch_mask_rcnn_R_18_FPN_gn.yaml"


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, REPOSITORY / "tools" / "measure_pixels.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)


def make_set(folder: Path, types: list[type]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 200, (6, 5 + index, 5)).astype(kind) for index, kind in enumerate(types)]
    for index, image in enumerate(images):
        np.save(folder / f"{index}.npy", image)
    listed = [{"id": index, "file_name": f"{index}.npy"} for index in range(len(images))]
    (folder / "set.json").write_text(json.dumps({"images": listed}))
    return images


def test_output_pasted_into_a_command_line_is_numpys(tmp_path):
    images = make_set(tmp_path, [np.uint16] * 3)
    result = run("--json", tmp_path / "set.json", "--images", tmp_path, "--format", "RAW")
    assert result.returncode == 0, result.stderr
    assert "warning" not in result.stdout
    options = re.findall(r'"?([^\s"]+)"?', result.stdout.splitlines()[-1])
    cfg = load_config(TOY_CONFIG, opts=[*options, "INPUT.FORMAT", "RAW"])
    pixels = np.concatenate([image.reshape(-1, 5) for image in images])
    np.testing.assert_allclose(cfg.MODEL.PIXEL_MEAN, pixels.mean(0), atol=6e-4)
    np.testing.assert_allclose(cfg.MODEL.PIXEL_STD, pixels.std(0), atol=6e-4)


def test_mixed_bit_depths_give_a_warning(tmp_path):
    make_set(tmp_path, [np.uint8, np.uint16])
    result = run("--json", tmp_path / "set.json", "--images", tmp_path, "--format", "RAW")
    assert "warning: the files differ in bit depth (uint16 and uint8)" in result.stdout


def test_errors_are_one_line(tmp_path):
    make_set(tmp_path, [np.uint8])
    (tmp_path / "0.npy").unlink()
    for images, json_file in ((tmp_path, tmp_path / "set.json"), (tmp_path, tmp_path / "absent.json")):
        result = run("--json", json_file, "--images", images, "--format", "RAW")
        assert result.returncode == 1
        assert re.fullmatch(r"error: Cannot read .*", result.stderr.splitlines()[-1])
        assert "Traceback" not in result.stderr
    result = run("--json", tmp_path / "set.json")
    assert result.returncode == 2
    assert "give either --dataset, or --json and --images" in result.stderr
