"""Several processes as users start them: --num-gpus, torchrun, a dying process, Ctrl-C."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY, SHORT_RUN, TOY_CONFIG

TRAIN_NET = str(REPOSITORY / "tools" / "train_net.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ITERATIONS = 20
RUN = [
    *SHORT_RUN,
    *("SOLVER.IMS_PER_BATCH", "4", "RETHINK.SCHEDULE", f"{4 * ITERATIONS} images", "MODEL.DEVICE", "cpu"),
    *("RETHINK.WATCH.LOG_PERIOD", "1", "RETHINK.MICRO_BATCH", "2"),
]


def command(output: Path, *flags: str, launcher=(sys.executable,)) -> list[str]:
    config = ["--config-file", str(TOY_CONFIG)]
    return [*launcher, TRAIN_NET, *config, *flags, *RUN, "OUTPUT_DIR", str(output)]


def start(words: list[str], stdout: int = subprocess.PIPE, **env: str) -> subprocess.Popen:
    """`stdout` DEVNULL for what says more, before it is waited for, than a pipe holds."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", **env}
    return subprocess.Popen(
        words, env=env, stdout=stdout, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen, timeout: float = 300) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return process.returncode, out, err


def losses(output: Path) -> dict[int, float]:
    rows = map(json.loads, (output / "metrics.json").read_text().splitlines())
    return {row["iteration"]: row["total_loss"] for row in rows if "total_loss" in row}


def weights(output: Path) -> dict[str, torch.Tensor]:
    return torch.load(output / "model_final.pth", weights_only=False)["model"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def children(parent: int) -> list[int]:
    """Pids of the processes that `parent` has started."""
    return list(map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()))


def workers(launcher: subprocess.Popen) -> list[int]:
    """Pids of the ranks below a launcher, in their order."""
    ranks = {}
    for pid in children(launcher.pid):
        environ = Path(f"/proc/{pid}/environ").read_text().split("\0")
        ranks |= {int(pair.removeprefix("RANK=")): pid for pair in environ if pair.startswith("RANK=")}
    return [ranks[rank] for rank in sorted(ranks)]


def wait_for(what, process: subprocess.Popen, seconds: float = 120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = what()
        if value:
            return value
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise TimeoutError


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def iteration(output: Path) -> int:
    metrics = output / "metrics.json"
    return len(metrics.read_text().splitlines()) if metrics.is_file() else 0


LAUNCHED = [sys.executable, str(REPOSITORY / "tests" / "launched.py")]


class TestLaunch:
    """With a script in the place of training."""

    @pytest.mark.parametrize(
        "words",
        [[*LAUNCHED, "sum", "--num-gpus", "2"], [*TORCHRUN, LAUNCHED[1], "sum"]],
        ids=["flag", "torchrun"],
    )
    def test_all_processes_meet(self, words):
        code, out, err = finish(start(words))
        assert code == 0, err
        assert sorted(out.splitlines()) == ["rank 0 of 2, local 0, sum 3", "rank 1 of 2, local 1, sum 3"]

    def test_two_machines(self):
        url = f"tcp://127.0.0.1:{free_port()}"
        flags = ["--num-machines", "2", "--dist-url", url, "--machine-rank"]
        both = [start([*LAUNCHED, "sum", *flags, rank]) for rank in "01"]
        results = [finish(process) for process in both]
        assert [code for code, *_ in results] == [0, 0], results
        assert [out for _, out, _ in results] == [
            "rank 0 of 2, local 0, sum 3\n",
            "rank 1 of 2, local 0, sum 3\n",
        ]

    def test_srun(self):
        """As SLURM starts two tasks, each on a machine of its own."""
        job = {
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_JOB_ID": "7",
            "SLURM_LOCALID": "0",
            "MASTER_PORT": str(free_port()),
        }
        both = [start([*LAUNCHED, "sum"], **job, SLURM_PROCID=rank) for rank in "01"]
        outs = [finish(process)[1] for process in both]
        assert outs == ["rank 0 of 2, local 0, sum 3\n", "rank 1 of 2, local 0, sum 3\n"]

    def test_a_mistake_of_all_is_said_once(self):
        code, _, err = finish(start([*LAUNCHED, "mistake", "--num-gpus", "2"]))
        assert (code, err.splitlines()) == (1, ["error: everybody comes to it"])

    def test_a_mistake_of_one_is_one_line(self):
        code, _, err = finish(start([*LAUNCHED, "late mistake", "--num-gpus", "2"]))
        assert code == 1 and err.splitlines()[0] == "error: rank 1 alone" and "Traceback" not in err

    def test_a_bug_of_one_shows_before_its_echo(self):
        code, _, err = finish(start([*LAUNCHED, "bug", "--num-gpus", "2"]))
        assert code == 1 and err.count("Traceback") == 1 and "ZeroDivisionError: the own error" in err

    def test_a_killed_process_ends_the_job_and_is_named(self):
        code, _, err = finish(start([*LAUNCHED, "killed", "--num-gpus", "2"]))
        assert code == 1
        assert re.fullmatch(r"error: Process 1 \(pid \d+\) was killed by SIGKILL.*--resume .*\n", err)

    @pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_signal_ends_all(self, signum, status):
        process = start([*LAUNCHED, "wait", "--num-gpus", "2"])
        lines = [process.stdout.readline() for _ in range(2)]
        assert lines == ["ready\n"] * 2
        pids = children(process.pid)
        assert len(pids) == 2
        if signum == signal.SIGINT:  # Ctrl-C reaches everything in the terminal
            os.killpg(process.pid, signum)
        else:
            process.send_signal(signum)
        code, _, err = finish(process)
        assert code == status and "Traceback" not in err
        assert err.count("Stopped.") == (signum == signal.SIGINT)
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)

    def test_processes_without_a_launcher_end(self):
        process = start([*LAUNCHED, "wait", "--num-gpus", "2"])
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n"] * 2
        pids = children(process.pid)
        process.kill()
        finish(process)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), None, 60)

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (["--num-gpus", "0"], "error: --num-gpus 0 --num-machines 1: both are at least 1."),
            (
                ["--num-machines", "2"],
                "error: --dist-url auto is where 2 machines meet: give tcp://HOST:PORT",
            ),
        ],
    )
    def test_wrong_flags_are_one_line(self, flags, message):
        code, _, err = finish(start([*LAUNCHED, "sum", *flags]))
        assert code == 1 and err.startswith(message) and err.count("\n") == 1


@pytest.fixture(scope="module")
def one(datasets, tmp_path_factory) -> Path:
    """The undisturbed run of one process: two micro-batches a step."""
    output = tmp_path_factory.mktemp("one") / "run"
    code, _, err = finish(start(command(output)))
    assert code == 0, err
    return output


def submitit_command(output: Path) -> list[str]:
    job = [sys.executable, str(REPOSITORY / "tools" / "launch_slurm.py"), "--executor", "local"]
    flags = ["--gpus-per-node", "2", "--time", "10", "--log-dir", str(output.parent / "log"), "--"]
    return [*job, *flags, *command(output)[2:]]


@pytest.mark.parametrize("launcher", ["flag", "torchrun", pytest.param("submitit", marks=pytest.mark.slow)])
def test_two_processes_take_the_steps_of_one(one, tmp_path, launcher):
    output = tmp_path / "run"
    words = {
        "flag": command(output, "--num-gpus", "2"),
        "torchrun": command(output, launcher=TORCHRUN),
        "submitit": submitit_command(output),
    }
    code, _, err = finish(start(words[launcher]))
    assert code == 0, err
    (session,) = json.loads((output / "run.json").read_text())["sessions"]
    assert [session["recipe"][key] for key in ("processes", "images_per_process")] == [2, 2]
    expected, found = losses(one), losses(output)
    assert list(found) == list(expected) == list(range(ITERATIONS))
    assert [found[i] for i in found] == pytest.approx([expected[i] for i in expected], rel=1e-4)
    for name, value in weights(output).items():
        torch.testing.assert_close(value, weights(one)[name], rtol=1e-4, atol=1e-6)


def kill_one_and_let_torchrun_restart(output: Path, at: int, rank: int) -> str:
    process = start(command(output, launcher=[*TORCHRUN, "--max-restarts", "1"]))
    wait_for(lambda: iteration(output) >= at, process)
    os.kill(workers(process)[rank], signal.SIGKILL)
    code, out, err = finish(process)
    assert code == 0, err
    return out


@pytest.mark.parametrize(
    "seed", [pytest.param(0), *(pytest.param(s, marks=pytest.mark.slow) for s in range(1, 5))]
)
def test_torchrun_restarts_a_killed_run_to_the_same_end(one, tmp_path, seed):
    draw = random.Random(seed)
    at, rank = draw.randint(3, ITERATIONS - 2), draw.randint(0, 1)
    out = kill_one_and_let_torchrun_restart(tmp_path / "run", at, rank)
    assert "Training from iteration 0" in out and out.count("Training from iteration") == 2
    assert same(weights(tmp_path / "run"), weights(one))


@pytest.mark.parametrize(
    ("signum", "status"),
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)],
)
def test_a_signal_saves_the_step_and_a_resume_goes_on_behind_it(one, tmp_path, signum, status):
    output = tmp_path / "run"
    process = start(command(output, "--num-gpus", "2"))
    wait_for(lambda: iteration(output) >= 7, process)
    pids = children(process.pid)
    os.killpg(process.pid, signum)  # as a terminal or a batch system does
    code, out, err = finish(process)
    assert code == status and "Traceback" not in err, err
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    (session,) = json.loads((output / "run.json").read_text())["sessions"]
    assert session["ended"] == "interrupted" and 7 <= session["end_iter"] < ITERATIONS

    code, out, err = finish(start(command(output, "--resume", "--num-gpus", "2")))
    assert code == 0, err
    assert f"Training from iteration {session['end_iter']}:" in out
    assert same(weights(output), weights(one))


@pytest.mark.slow
def test_machines_that_come_and_go_change_nothing(datasets, tmp_path):
    """torchrun --nnodes 1:2: a second machine joins, and later dies."""
    output = tmp_path / "run"
    meeting = [
        "--rdzv-backend",
        "c10d",
        "--rdzv-endpoint",
        f"localhost:{free_port()}",
        "--rdzv-id",
        "elastic",
    ]
    agent = [*TORCHRUN[:3], "--nnodes", "1:2", "--nproc-per-node", "1", "--max-restarts", "3", *meeting]
    longer = ["RETHINK.SCHEDULE", f"{4 * 200} images"]  # enough for both to happen
    words = [*command(output, launcher=agent), *longer]
    # Without it, an agent of torch 2.14 waits in vain for the address of one that was there before.
    own_store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    first = start(words, subprocess.DEVNULL, **own_store)
    wait_for(lambda: iteration(output) >= 5, first)
    second = start(words, subprocess.DEVNULL, **own_store)
    wait_for(lambda: process_counts(output)[-1] == 2, first)
    at = iteration(output)
    wait_for(lambda: iteration(output) > at + 3, first)
    os.killpg(second.pid, signal.SIGKILL)
    code, _, err = finish(first)
    finish(second)
    assert code == 0, err
    counts = process_counts(output)
    assert counts[0] == 1 and 2 in counts and counts[-1] == 1

    undisturbed = tmp_path / "undisturbed"
    assert finish(start([*command(undisturbed), *longer], subprocess.DEVNULL))[0] == 0
    assert same(weights(output), weights(undisturbed))


def process_counts(output: Path) -> list[int]:
    record = output / "run.json"
    sessions = json.loads(record.read_text())["sessions"] if record.is_file() else []
    return [session["recipe"]["processes"] for session in sessions] or [0]
