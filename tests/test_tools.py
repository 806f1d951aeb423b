"""The tools as a user starts them: separate processes, looked at from outside."""

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch
import yaml
from conftest import REPOSITORY, SHORT_RUN, TOY_CONFIG
from PIL import Image

from rethink_pretrain.data.datasets.toy_classes import make_toy_classification
from rethink_pretrain.errors import UserError

SCRATCH_6X = str(REPOSITORY / "configs" / "scratch_6x.yaml")


def run_tool(name, *args, timeout=300, **env):
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / name), *args],
        env={**os.environ, "PYTHONWARNINGS": "ignore", **env},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_without_coco_one_message_says_what_is_missing_and_what_to_do(tmp_path):
    done = run_tool("train_net.py", "--config-file", SCRATCH_6X, DETECTRON2_DATASETS=str(tmp_path))
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    for part in (
        f"{tmp_path}/coco/annotations/instances_train2017.json",
        f"{tmp_path}/coco/train2017",
        f"{tmp_path}/coco/annotations/instances_val2017.json",
        f"{tmp_path}/coco/val2017",
        "DETECTRON2_DATASETS",
        "cocodataset.org",
        "make demo",
    ):
        assert part in line


def test_dry_run_prints_the_resolved_config_and_nothing_else_on_stdout(tmp_path):
    done = run_tool(
        *("train_net.py", "--config-file", SCRATCH_6X, "--overlay", "d2_defaults", "--dry-run"),
        *("SOLVER.IMS_PER_BATCH", "64"),
        DETECTRON2_DATASETS=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    solver = yaml.safe_load(done.stdout)["SOLVER"]
    assert (solver["MAX_ITER"], tuple(solver["STEPS"]), solver["BASE_LR"]) == (135000, (120000, 130000), 0.08)
    assert solver["WARMUP_FACTOR"] == 0.001


def test_a_mistake_in_a_key_is_one_line(tmp_path):
    done = run_tool("train_net.py", "--config-file", SCRATCH_6X, "--dry-run", "SOLVER.BASE_RL", "0.1")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "unknown config key SOLVER.BASE_RL. Did you mean SOLVER.BASE_LR?" in done.stderr


def test_the_hosts_own_warnings_are_not_shown(tmp_path):
    """Users cannot mend them, and they stand above every message that users can act on."""
    done = run_tool("train_net.py", "--config-file", str(TOY_CONFIG), "--dry-run", PYTHONWARNINGS="")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("bench_reliability.py", "--stock"),
        ("benchmark.py", "--against"),
        ("check_configs.py", "--update"),
        ("compare_runs.py", "--force"),
        ("convert_weights.py", "--layout"),
        ("count_samples.py", "--train-json"),
        ("demo.py", "--output"),
        ("doctor.py", "--no-weights"),
        ("export_model.py", "--checkpoint"),
        ("launch_slurm.py", "--max-requeues"),
        ("make_coco_subset.py", "--stratified"),
        ("make_tables.py", "--check"),
        ("make_toy_dataset.py", "--classification"),
        ("measure_pixels.py", "--num-images"),
        ("plan.py", "--probe"),
        ("predict.py", "--min-score"),
        ("pretrain_backbone.py", "--train-images"),
        ("simulate_scaling.py", "--assume"),
        ("status.py", "--json"),
        ("sweep.py", "--status"),
        ("train_net.py", "--config-file"),
        ("validate_dataset.py", "--fix"),
        ("visualize.py", "predictions"),
    ],
)
def test_help_needs_no_heavy_import(name, flag):
    code = f"""
import runpy, sys
sys.argv = [{name!r}, "--help"]
try:
    runpy.run_path({str(REPOSITORY / "tools" / name)!r}, run_name="__main__")
except SystemExit:
    print("heavy:", [name for name in ("torch", "detectron2") if name in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout
    assert flag in out and out.endswith("heavy: []\n")


def test_train_then_a_second_run_then_evaluate(datasets, tmp_path):
    run = tmp_path / "run"
    args = ("train_net.py", "--config-file", str(TOY_CONFIG))
    opts = (*SHORT_RUN, "OUTPUT_DIR", str(run))
    done = run_tool(*args, *opts)
    assert done.returncode == 0, done.stderr
    assert (run / "model_final.pth").is_file()
    assert ("No GPU is visible: running on the CPU" in done.stdout) != torch.cuda.is_available()

    again = run_tool(*args, *opts)
    assert again.returncode == 1 and "already holds a run" in again.stderr and "Traceback" not in again.stderr

    evaluated = run_tool(*args, "--eval-only", "--resume", *opts)
    assert evaluated.returncode == 0 and "AP per category of toy_val" in evaluated.stdout


@pytest.fixture
def demo():
    spec = importlib.util.spec_from_file_location("demo", REPOSITORY / "tools" / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_demo_compares_both_arms(demo, datasets, tmp_path, monkeypatch, capfd):
    output = tmp_path / "demo"
    make_toy_classification(datasets / "toy_classes", 16, 8, 64, seed=0, num_workers=1)
    monkeypatch.setattr("rethink_pretrain.engine.jobs.POLL_SECONDS", 0.2)
    short = ["SOLVER.IMS_PER_BATCH", "4", "RETHINK.SCHEDULE", "16 images", "RETHINK.DROPS", "(0.5, 0.75)"]
    demo.open_folder(output)
    demo.train(
        output,
        [*SHORT_RUN, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"],
        [*short, "RETHINK.REFERENCE_WARMUP_ITERS", "0"],
    )
    demo.draw(output, datasets)
    demo.report(output, demo.summarize(output, 100.0))
    summary = json.loads((output / "summary.json").read_text())
    assert summary["scratch"]["samples"] == summary["finetune"]["samples"]
    assert summary["pretraining"]["samples"] == {"images": 16, "instances": 16, "pixels": 16 * 64 * 64}
    for arm in ("scratch", "finetune"):
        assert summary[arm]["iterations"] == 6 and 0 <= summary[arm]["box_ap"] < 60
    for name in ("curve.png", "predictions.png"):
        assert min(Image.open(output / name).size) > 300
    assert "Random weights against pretraining" in (output / "report.html").read_text()
    assert "[5/5] Done in 1.7 min. After 6 iterations, box AP" in capfd.readouterr().out
    record = json.loads((output / "finetune" / "run.json").read_text())["sessions"][0]
    assert record["weights"]["coverage"] == 1.0 and record["weights"]["unexpected"] == 0
    assert record["weights"]["pretraining"]["images"] == 16


def test_folders_of_a_demo(demo, tmp_path):
    """A finished one starts anew, an unfinished one goes on, one of somebody else stays as it is."""
    output = tmp_path / "demo"
    demo.open_folder(output)
    (output / "half").write_text("done")
    demo.open_folder(output)
    assert (output / "half").is_file()
    (output / "summary.json").write_text("{}")
    demo.open_folder(output)
    assert [path.name for path in output.iterdir()] == ["demo.json"]
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="something else than a demo"):
        demo.open_folder(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"
