"""The tool that counts images, instances and pixels, as a user runs it."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import REPOSITORY, TOY_CONFIG
from detectron2.data import DatasetCatalog
from made_runs import make_run
from PIL import Image

TOOL = REPOSITORY / "tools" / "count_samples.py"


def run(*arguments, **env):
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    env = {**os.environ, "PYTHONWARNINGS": "ignore", **env}
    return subprocess.run(command, capture_output=True, text=True, env=env)


@pytest.fixture
def run_here(monkeypatch, capsys):
    """As `run`, in this process, which has imported everything."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", [str(TOOL), *map(str, arguments)])
        status = 0
        try:
            runpy.run_path(str(TOOL), run_name="__main__")
        except SystemExit as error:
            status = error.code
        captured = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=captured.out, stderr=captured.err)

    return call


def numbers(path: Path) -> dict[str, list]:
    """Name of the entry, or of the entry and its phase -> [images, instances, pixels]."""
    ret = {}
    for entry in json.loads(path.read_text())["entries"]:
        parts = {entry["name"]: entry["total"], **{(entry["name"], p["name"]): p for p in entry["phases"]}}
        ret |= {key: [part[k] for k in ("images", "instances", "pixels")] for key, part in parts.items()}
    return ret


def test_paper(tmp_path):
    done = run("--paper", "--json", tmp_path / "a.json", "--figure", tmp_path / "a.png")
    assert done.returncode == 0, done.stderr
    rows = {line[:23].strip(): line[23:].replace(" ", "") for line in done.stdout.splitlines()}
    assert rows["pre-train + fine-tune"] == "131.0M149.1M9.5T"
    assert rows["from random"] == "8.6M62.8M9.2T"
    assert "1,281,167 images x 100 epochs = 128,116,700" in done.stdout and "8.28 M" in done.stdout
    assert numbers(tmp_path / "a.json")["from random"][::2] == [8_640_000, 9_213_696_000_000]
    assert min(Image.open(tmp_path / "a.png").size) > 300


def test_configs_without_data_say_what_is_assumed(tmp_path):
    configs = [REPOSITORY / "configs" / name for name in ("scratch_6x.yaml", "finetune_2x.yaml")]
    done = run("--configs", *configs, "--json", tmp_path / "a.json", DETECTRON2_DATASETS=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "assumed for coco_2017_train: the paper's 7.27 instances" in done.stdout
    assert "pre-training: assumed: the paper's figure 2" in done.stdout
    counts = numbers(tmp_path / "a.json")
    assert counts["finetune_2x"] == pytest.approx([130_996_700, 149_055_627, 9_499_615_539_200])
    assert counts["scratch_6x"] == pytest.approx([8_640_000, 62_816_782, 9_213_696_000_000])


def test_configs_with_data_use_it_and_its_subsets(datasets, tmp_path, run_here):
    half = tmp_path / "half.yaml"
    half.write_text(yaml.safe_dump({"_BASE_": str(TOY_CONFIG), "DATASETS": {"TRAIN": ["toy_train@50%"]}}))
    done = run_here("--configs", TOY_CONFIG, half, "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr
    document = json.loads((datasets / "toy" / "train.json").read_text())
    with_objects = {a["image_id"] for a in document["annotations"] if not a["iscrowd"]}
    mean = sum(not a["iscrowd"] for a in document["annotations"]) / len(with_objects)
    images, instances, _ = numbers(tmp_path / "a.json")[TOY_CONFIG.stem]
    assert instances == pytest.approx(images * mean)
    assert f"{len(with_objects)} images of toy_train," in done.stdout
    subset = [any(not a["iscrowd"] for a in r["annotations"]) for r in DatasetCatalog.get("toy_train@50%")]
    assert len(subset) == 12 and f"{sum(subset)} images of toy_train@50%," in done.stdout


def test_a_file_of_annotations_and_weights_that_tell(tmp_path, run_here):
    images = [{"id": 1, "height": 40, "width": 40}, {"id": 2, "height": 20, "width": 80}]
    objects = [{"image_id": 1}, {"image_id": 1}, {"image_id": 1}]
    (tmp_path / "mine.json").write_text(json.dumps({"images": images, "annotations": objects}))
    told = {"images": 300.0, "instances": 200.0, "pixels": 1e6, "recipe": "two epochs"}
    weights, untold = tmp_path / "told.pth", tmp_path / "untold.pth"
    torch.save({"model": {"a": torch.zeros(1)}, "pretraining": told}, weights)
    torch.save({"model": {"a": torch.zeros(1)}}, untold)
    configs = []
    for name, path in (("told", weights), ("untold", untold)):
        config = {
            "_BASE_": str(TOY_CONFIG),
            "MODEL": {"WEIGHTS": str(path)},
            "SOLVER": {"IMS_PER_BATCH": 2},
            "RETHINK": {"SCHEDULE": "10 images", "REFERENCE_WARMUP_ITERS": 0},
            "INPUT": {"MIN_SIZE_TRAIN": [20, 30], "MAX_SIZE_TRAIN": 60},
        }
        configs.append(tmp_path / f"{name}.yaml")
        configs[-1].write_text(yaml.safe_dump(config))
    done = run_here(
        "--configs", *configs, "--train-json", tmp_path / "mine.json", "--json", tmp_path / "a.json"
    )
    assert done.returncode == 0, done.stderr
    counts = numbers(tmp_path / "a.json")
    # The image without objects is left out.
    assert counts["told", "training"] == [10, 30, 10 * (20 * 20 + 30 * 30) / 2]
    assert counts["told"] == [310, 230, 1e6 + 6500]
    assert counts["untold"] == counts["untold", "pre-training"] == [None, None, None]
    assert "told by the weights: two epochs" in done.stdout


def test_runs(tmp_path, run_here):
    counts = {"samples": {"images": 40, "instances": 280, "pixels": 100}}
    make_run(tmp_path / "ours", sessions=[counts])
    make_run(tmp_path / "host", weights="catalog://ImageNetPretrained/FAIR/R-50-GN")
    done = run_here("--runs", tmp_path / "ours", tmp_path / "host", "--json", tmp_path / "a.json")
    assert done.returncode == 0, done.stderr
    counts = numbers(tmp_path / "a.json")
    assert counts["ours"] == [40, 280, 100]
    assert counts["host"] == [128_116_700 + 3200, None, None]
    assert "unknown" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ((), 2, "one of the arguments --paper --configs --runs is required"),
        (("--paper", "--runs", "a"), 2, "not allowed with"),
        (("--paper", "--train-json", "a"), 2, "--train-json goes with --configs"),
        (("--runs", "/nowhere/at/all"), 1, "/nowhere/at/all/metrics.json does not exist"),
        (("--configs", "/nowhere.yaml"), 1, "does not exist"),
        (("--configs", TOY_CONFIG, "--train-json", "/nowhere.json"), 1, "Cannot read /nowhere.json"),
        (("--paper", "--json", "/nowhere/a.json"), 1, "Cannot write /nowhere/a.json"),
        (("--paper", "--figure", "/tmp/a.foo"), 1, "Cannot write /tmp/a.foo"),
    ],
)
def test_mistakes_are_one_line(run_here, arguments, status, words):
    done = run_here(*arguments)
    assert done.returncode == status and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert words in line and line == done.stderr.splitlines()[-1]
