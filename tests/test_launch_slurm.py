"""tools/launch_slurm.py: the script it prints, its refusals, and jobs of two processes on this machine."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, SHORT_RUN, TOY_CONFIG

from rethink_pretrain.analysis.sweeps import read_sweep

pytest.importorskip("submitit")

SWEEP = REPOSITORY / "configs" / "sweeps" / "toy_smoke.yaml"

# In place of train_net.py, and quick to start: it waits until it is stopped, unless it is resumed.
STAND_IN = """
import os, signal, sys, time
if "--dry-run" in sys.argv:
    print("SOLVER: {IMS_PER_BATCH: 2}")
    raise SystemExit(0 if "BAD" not in sys.argv else "error: BAD is bad")
def stop(*_):
    print("saved", flush=True)
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("process", os.environ["RANK"], "of", os.environ["WORLD_SIZE"], *sys.argv[1:], flush=True)
if "FAIL" in sys.argv:
    raise SystemExit(4)
if "--resume" not in sys.argv:
    time.sleep(100)
"""


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("launch_slurm", REPOSITORY / "tools" / "launch_slurm.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def launch(tool, tmp_path, monkeypatch, capfd):
    """Calls the tool in this process; its exit status, stdout and stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["launch_slurm.py", "--log-dir", str(tmp_path / "logs"), *words])
        try:
            tool.main()
            status = 0
        except SystemExit as exit:
            status = exit.code
        return status, *capfd.readouterr()

    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture
def stand_in(tool, tmp_path, monkeypatch):
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    monkeypatch.setattr(tool, "TRAIN_NET", path)


def write_state(folder: Path, end: int | None) -> None:
    """The files of a run of ten iterations; one without an end was killed."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"SOLVER": {"MAX_ITER": 10}}))
    session = {"start_iter": 0} | ({} if end is None else {"end_iter": end})
    (folder / "run.json").write_text(json.dumps({"sessions": [session]}))
    (folder / "metrics.json").write_text(json.dumps({"iteration": 9, "bbox/AP": 1.0}) + "\n")


class TestDryRun:
    def test_prints_the_script(self, launch):
        status, out, err = launch(
            *("--nodes", "2", "--gpus-per-node", "8", "--time", "3-00", "--partition", "gpu", "--dry-run"),
            *("--", "--config-file", str(REPOSITORY / "configs" / "scratch_6x.yaml")),
        )
        assert (status, err) == (0, "") and out.startswith("#!/bin/bash\n")
        for flag in (
            "nodes=2",
            "ntasks-per-node=8",
            "partition=gpu",
            "time=4320",
            "requeue",
            "signal=USR2@120",
        ):
            assert f"#SBATCH --{flag}\n" in out
        assert "array" not in out and not Path("logs").exists()

    def test_sweep_is_an_array(self, launch):
        status, out, _ = launch("--sweep", str(SWEEP), "--parallel", "1", "--time", "60", "--dry-run")
        assert status == 0 and f"#SBATCH --array=0-{len(read_sweep(SWEEP)) - 1}%1\n" in out


class TestSweep:
    @pytest.fixture
    def runs(self, launch):
        return read_sweep(SWEEP)

    def test_finished_runs_are_left_out_and_broken_ones_resumed(self, tool, runs, monkeypatch):
        write_state(runs[0].output, end=10)
        write_state(runs[1].output, end=None)
        monkeypatch.setattr(sys, "argv", ["launch_slurm.py", "--time", "60", "--sweep", str(SWEEP)])
        jobs = tool.find_jobs(tool.parse_args())
        assert [job.resume for job in jobs] == [True] + [False] * (len(runs) - 2)
        assert jobs[0].command[1:] == ("--config-file", str(runs[1].config), *runs[1].opts)
        assert jobs[0].command[0] == str(REPOSITORY / "tools" / "train_net.py")

    def test_nothing_left(self, launch, runs):
        for run in runs:
            write_state(run.output, end=10)
        status, out, err = launch("--sweep", str(SWEEP), "--time", "60", "--dry-run")
        assert (status, out) == (1, "")
        assert err == f"error: All {len(runs)} runs of {SWEEP} are finished.\n"


class TestRefusals:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--time 3d -- x", '--time 3d: give minutes ("90"), "12:00:00" or days ("3-00", "3-12:00:00").'),
            ("--time 60 --nodes 0 -- x", "--nodes 0: at least 1."),
            ("--time 60 --cpus-per-gpu 0 -- x", "--cpus-per-gpu 0: at least 1."),
            ("--time 60 --max-requeues -1 -- x", "--max-requeues -1: at least 0."),
            ("--time 60", "Give either --sweep FILE, or -- and the arguments of train_net.py."),
            (
                "--time 60 --sweep a -- x",
                "Give either --sweep FILE, or -- and the arguments of train_net.py.",
            ),
            ("--time 60 -- --num-gpus=8", "Leave out --num-gpus=8: --nodes and --gpus-per-node say it."),
            (
                "--time 60 --nodes 2 --executor local -- x",
                "--executor local takes one machine and one run; for a sweep: tools/sweep.py FILE --run.",
            ),
            ("--time 60 --gpus-per-node 3 -- x", "SOLVER.IMS_PER_BATCH 2 does not divide by 3 GPUs."),
            ("--time 60 --gpus-per-node 2 -- BAD", "train_net.py: BAD is bad"),
        ],
    )
    def test_one_line(self, words, message, launch, stand_in):
        assert launch(*words.split()) == (1, "", f"error: {message}\n")

    def test_without_submitit(self, launch, monkeypatch):
        monkeypatch.setitem(sys.modules, "submitit", None)
        status, _, err = launch("--time", "60", "--dry-run", "--", "x")
        assert status == 1 and err.endswith("pip install submitit\n") and err.count("\n") == 1


def signal_tasks() -> None:
    """As SLURM signals a job: every process of it, here all that descend from this one but the controller."""
    lines = subprocess.check_output(["ps", "-eo", "pid=,ppid=,args="], text=True).splitlines()
    rows = [(int(pid), int(parent), rest) for pid, parent, rest in (line.split(None, 2) for line in lines)]
    family = {os.getpid()}
    while more := {pid for pid, parent, _ in rows if parent in family} - family:
        family |= more
    for pid, _, words in rows:
        if pid in family - {os.getpid()} and ("submitit.core._submit" in words or "--config-file" in words):
            os.kill(pid, signal.SIGUSR2)


def preempt_when(ready) -> threading.Thread:
    """Signals the tasks once `ready()`; the tool waits for its job meanwhile."""

    def watch():
        deadline = time.monotonic() + 120
        while not ready() and time.monotonic() < deadline:
            time.sleep(0.1)
        signal_tasks()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


LOCAL = ("--executor", "local", "--gpus-per-node", "2", "--time", "60", "--")


@pytest.mark.slow
class TestLocal:
    """Two processes on this machine, with or without GPUs."""

    def test_preempted_and_resumed(self, launch, stand_in, tmp_path):
        def logs():
            return [path.read_text() for path in sorted((tmp_path / "logs").glob("*.out"))]

        watcher = preempt_when(lambda: sum("of 2 --config-file a" in log for log in logs()) == 2)
        status, out, err = launch(*LOCAL, "--config-file", "a")
        watcher.join()
        assert status == 0, err
        assert out.startswith("Submitted ")
        for rank, log in enumerate(logs()):
            start = f"process {rank} of 2"
            order = [f"{start} --config-file a", "saved", f"{start} --resume --config-file a"]
            assert [line for line in log.splitlines() if line in order] == order

    def test_a_failure_is_one_line(self, launch, stand_in):
        status, _, err = launch(*LOCAL, "--config-file", "a", "FAIL")
        assert status == 1 and err.startswith("error: The job failed; all it said is in logs/")
        assert "stand_in.py ended with status 4" in Path(err.split()[-1].rstrip(".")).read_text()

    def test_real_training(self, launch, datasets, tmp_path):
        """Preempted after its first checkpoint, and finished after all."""
        run = tmp_path / "run"
        opts = ["RETHINK.SCHEDULE", "60 images", "MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(run)]
        watcher = preempt_when((run / "last_checkpoint").exists)
        status, _, err = launch(*LOCAL, "--config-file", str(TOY_CONFIG), *SHORT_RUN, *opts)
        watcher.join()
        assert status == 0, err
        sessions = json.loads((run / "run.json").read_text())["sessions"]
        assert [session["hardware"]["processes"] for session in sessions] == [2, 2]
        assert sessions[1]["start_iter"] >= 3 and sessions[1]["end_iter"] == 30
        assert (run / "model_final.pth").is_file()
