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
        ("check_configs.py", "--update"),
        ("compare_runs.py", "--force"),
        ("demo.py", "--output"),
        ("doctor.py", "--no-weights"),
        ("export_model.py", "--checkpoint"),
        ("launch_slurm.py", "--max-requeues"),
        ("make_coco_subset.py", "--stratified"),
        ("make_tables.py", "--check"),
        ("make_toy_dataset.py", "--image-size"),
        ("measure_pixels.py", "--num-images"),
        ("predict.py", "--min-score"),
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


def test_demo_leaves_pictures_and_a_summary_and_runs_twice(demo, datasets, tmp_path, monkeypatch, capsys):
    output = tmp_path / "demo"
    monkeypatch.setattr(demo, "make_data", lambda: datasets / "toy")
    opts = [*SHORT_RUN, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]
    monkeypatch.setattr(sys, "argv", ["demo.py", "--output", str(output), *opts])
    for _ in range(2):
        demo.main()
        summary = json.loads((output / "summary.json").read_text())
        assert set(summary) == {
            *("box_ap", "mask_ap", "train_seconds", "peak_rss_mb", "iterations", "versions"),
        }
        assert summary["iterations"] == 6 and 0 <= summary["box_ap"] < 60 and summary["train_seconds"] > 0
        for name in ("curve.png", "predictions.png"):
            assert min(Image.open(output / name).size) > 300
    assert "[4/4] Done: box AP" in capsys.readouterr().out


@pytest.mark.parametrize("checkpoint", [True, False])
def test_an_interrupted_demo_continues(demo, datasets, tmp_path, monkeypatch, checkpoint):
    output = tmp_path / "demo"
    monkeypatch.setattr(demo, "make_data", lambda: datasets / "toy")
    monkeypatch.setattr(sys, "argv", ["demo.py", "--output", str(output), *SHORT_RUN])
    demo.run(output, SHORT_RUN)  # as far as its last checkpoint, without a summary
    if not checkpoint:
        for path in (output / "last_checkpoint", *output.glob("model_*")):
            path.unlink()
    demo.main()
    sessions = json.loads((output / "run.json").read_text())["sessions"]
    assert [session["start_iter"] for session in sessions] == [0, 6 if checkpoint else 0]
    assert json.loads((output / "summary.json").read_text())["box_ap"] >= 0


def test_the_demo_deletes_no_folder_of_another(demo, datasets, tmp_path, monkeypatch, capsys):
    for name, text in (("summary.json", "{}"), ("metrics.json", "{}"), ("notes.txt", "mine")):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(demo, "make_data", lambda: datasets / "toy")
    monkeypatch.setattr(sys, "argv", ["demo.py", "--output", str(tmp_path), *SHORT_RUN])
    with pytest.raises(SystemExit):
        demo.main()
    assert "already holds a run" in capsys.readouterr().err
    assert (tmp_path / "notes.txt").read_text() == "mine"
