"""Signals to a run of two processes, wherever it is: saved, the documented exit status, and a resume."""

import json
import os
import signal
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from conftest import REPOSITORY
from test_launch import ITERATIONS, command, finish, same, start, wait_for, weights, workers
from test_launch import one as one  # the undisturbed run

SLOWED = str(REPOSITORY / "tests" / "slowed.py")
PERIOD = 3  # iterations between two evaluations


class Case(NamedTuple):
    """`place` is "evaluation", "last evaluation", "data" or "training"; `to` is "launcher" or "worker"."""

    place: str
    to: str
    number: int = signal.SIGTERM
    loader_workers: int = 0

    @property
    def status(self) -> int:
        return 130 if self.number == signal.SIGINT else 143


def begin(case: Case, output: Path) -> tuple:
    """A run that is at `case.place`."""
    words = command(output, "--num-gpus", "2")
    words += ["DATALOADER.NUM_WORKERS", str(case.loader_workers)]
    if case.place == "evaluation":
        words += ["TEST.EVAL_PERIOD", str(PERIOD)]
    slow = case.place.split()[-1]
    marks = output.parent / "marks"
    if slow == "training":
        process = start(words)
        metrics = output / "metrics.json"
        wait_for(lambda: metrics.is_file() and metrics.read_text().count("\n") >= PERIOD, process)
    else:
        process = start([words[0], SLOWED, *words[2:]], SLOW=slow, SLOW_FILE=str(marks))
        images = 9 if slow == "data" else 2  # that data loading and evaluation have seen
        wait_for(lambda: marks.is_file() and marks.read_text().count("\n") >= images, process)
    return process, words


def check_end(case: Case, output: Path) -> int:
    """Iterations that the run, as its files have it, has done."""
    (session,) = json.loads((output / "run.json").read_text())["sessions"]
    assert session["ended"] == "interrupted"
    last = output / (output / "last_checkpoint").read_text()
    # Ours: the test has just written it.
    assert torch.load(last, weights_only=False)["iteration"] == session["end_iter"] - 1
    rows = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == list(range(session["end_iter"]))
    if case.place == "evaluation":
        assert session["end_iter"] == PERIOD
    return session["end_iter"]


CASES = [
    Case("evaluation", "worker", loader_workers=2),
    Case("data", "launcher", loader_workers=2),
]
SLOW_CASES = [
    Case("evaluation", "launcher", loader_workers=2),
    Case("last evaluation", "launcher", signal.SIGINT),
    Case("evaluation", "launcher", signal.SIGINT),
    Case("evaluation", "worker", signal.SIGUSR1, loader_workers=2),
    Case("last evaluation", "worker"),
    Case("data", "worker"),
    Case("data", "launcher"),
    Case("data", "worker", signal.SIGINT, loader_workers=2),
    Case("training", "worker"),
    Case("training", "launcher", signal.SIGINT),
]


@pytest.mark.parametrize(
    "case", [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW_CASES)], ids=str
)
def test_a_signal_saves_and_a_resume_comes_to_the_same_end(one, tmp_path, case, record_property):
    output = tmp_path / "run"
    process, words = begin(case, output)
    since = time.monotonic()
    if case.to == "worker":
        os.kill(workers(process)[1], case.number)
    else:
        os.killpg(process.pid, case.number)  # as a terminal or a batch system does
    code, out, err = finish(process, 60)
    record_property("seconds", seconds := round(time.monotonic() - since, 1))
    print(case, "seconds to the end:", seconds)
    assert code == case.status, (out, err)
    assert "Traceback" not in out + err and "killed by" not in err, err
    done = check_end(case, output)

    code, out, err = finish(start(resumed(words)))
    assert code == 0, err
    goes_on = "It is evaluated once more" if case.place == "last evaluation" else f"from iteration {done}:"
    assert goes_on in out
    assert same(weights(output), weights(one))
    rows = [json.loads(line) for line in (output / "metrics.json").read_text().splitlines()]
    assert "bbox/AP" in rows[-1] and rows[-1]["iteration"] in (ITERATIONS - 1, ITERATIONS)


def resumed(words: list[str]) -> list[str]:
    place = words.index("--num-gpus")
    return [*words[:place], "--resume", *words[place:]]


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_save(datasets, tmp_path):
    output = tmp_path / "run"
    process, _ = begin(Case("data", "launcher"), output)
    pids = workers(process)
    for _ in range(2):
        for pid in (*pids, process.pid):
            os.kill(pid, signal.SIGINT)
        time.sleep(0.1)
    code, _, err = finish(process, 60)
    assert code == 130 and err.count("Traceback") == 0, err
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), None, 60)
    assert not (output / "last_checkpoint").exists()
