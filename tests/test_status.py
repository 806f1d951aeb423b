"""Statuses from files that the test writes, and the tool as a user starts it."""

import json
import os
import sys

import pytest
import yaml
from conftest import REPOSITORY
from terminal import lines, run_in_terminal
from test_tools import run_tool

from rethink_pretrain.analysis.status import RunStatus, find_runs, last_incident, read_status
from rethink_pretrain.errors import UserError

TOOL = REPOSITORY / "tools" / "status.py"
WRITTEN = 1_000_000.0  # seconds since 1970


def write_run(folder, *, rows=(), session=None, total=100):
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"SOLVER": {"MAX_ITER": total}}))
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if session is not None:
        (folder / "run.json").write_text(json.dumps({"sessions": [{}, session]}))
    for file in folder.iterdir():
        os.utime(file, (WRITTEN, WRITTEN))
    return folder


ROWS = [
    {"iteration": 19, "time": 0.5},
    {"iteration": 39, "time": 0.25, "bbox/AP": 12.5},
    {"iteration": 59, "time": 0.25},
]


class TestRuns:
    def test_running(self, tmp_path):
        run = write_run(tmp_path / "run", rows=ROWS, session={"start_iter": 0})
        os.utime(run / "metrics.json", (WRITTEN + 30, WRITTEN + 30))
        assert read_status(run, now=WRITTEN + 100) == RunStatus(
            name=str(run),
            state="unfinished",
            iteration=60,
            total=100,
            ap=12.5,
            seconds_per_iteration=0.25,
            eta_seconds=10.0,
            incident=None,
            seconds_since_write=70.0,
        )

    def test_finished(self, tmp_path):
        rows = [*ROWS, {"iteration": 100, "bbox/AP": 20.0}]
        run = write_run(tmp_path / "run", rows=rows, session={"end_iter": 100, "ended": "finished"})
        status = read_status(run)
        assert (status.state, status.iteration, status.ap) == ("finished", 100, 20.0)
        assert status.eta_seconds is None and status.incident is None

    def test_stopped_early(self, tmp_path):
        run = write_run(tmp_path / "run", rows=ROWS, session={"end_iter": 60, "ended": "stopped: enough"})
        status = read_status(run)
        assert (status.state, status.iteration, status.incident) == ("finished", 60, "stopped: enough")

    def test_just_begun(self, tmp_path):
        (tmp_path / "metrics.json").touch()
        status = read_status(tmp_path, now=0)
        assert status == RunStatus(str(tmp_path), "pending", 0, 0, None, None, None, None, 0.0)

    def test_undefined_ap(self, tmp_path):
        assert (
            read_status(write_run(tmp_path / "run", rows=[{"iteration": 1, "bbox/AP": float("nan")}])).ap
            is None
        )

    def test_broken_file(self, tmp_path):
        run = write_run(tmp_path / "run")
        (run / "metrics.json").write_text("nothing\n{}\n")
        status = read_status(run)
        assert status.state == "unreadable" and "line 1" in status.incident


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (['{"kind": "old"}', '{"iteration": 12, "kind": "nan", "losses": {}}'], "iteration 12, kind nan"),
        (["not json "], "not json"),
        (["[1, 2]"], "[1, 2]"),
        ([], "failed: KeyError: 'a'"),
    ],
)
def test_last_incident(tmp_path, lines, words):
    run = write_run(tmp_path / "run", session={"ended": "failed: KeyError: 'a'"})
    (run / "incidents.jsonl").write_text("".join(f"{line}\n" for line in lines))
    assert last_incident(run) == words


def test_find_runs(tmp_path):
    """At and below a folder; what Weights & Biases keeps in a run is none."""
    outer, inner = write_run(tmp_path / "b"), write_run(tmp_path / "b" / "deep" / "a")
    write_run(outer / "wandb" / "files")
    (outer / "inference").mkdir()
    assert find_runs([tmp_path, outer]) == [outer, inner]
    with pytest.raises(UserError, match=r"No runs at or below .*inference"):
        find_runs([outer / "inference"])


class TestTool:
    def test_table(self, tmp_path):
        write_run(tmp_path / "one", rows=ROWS, session={"end_iter": 60, "ended": "interrupted"})
        write_run(tmp_path / "two")
        done = run_tool("status.py", str(tmp_path), timeout=60)
        head, one, two = done.stdout.splitlines()
        assert head.split() == ["run", "state", "iteration", "AP", "s/it", "left", "wrote", "incident"]
        assert one.split()[:6] == [str(tmp_path / "one"), "unfinished", "60/100", "12.50", "0.250", "0:10"]
        assert one.split()[-2:] == ["ago", "interrupted"]
        assert two.split()[1:6] == ["unfinished", "0/100", "-", "-", "-"]

    def test_on_a_terminal(self, tmp_path):
        write_run(tmp_path / "[one]", rows=ROWS)
        status, shown = run_in_terminal(["sh", "-c", f"cd {tmp_path} && {sys.executable} {TOOL} ."])
        assert status == 0 and any(line.startswith("[one]  unfinished  60/100") for line in lines(shown))

    def test_json(self, tmp_path):
        write_run(tmp_path / "one", rows=ROWS)
        (found,) = json.loads(run_tool("status.py", str(tmp_path), "--json", timeout=60).stdout)
        assert found["name"] == str(tmp_path / "one") and found["eta_seconds"] == 10
        assert set(found) == set(RunStatus._fields)

    def test_nothing_there(self, tmp_path):
        done = run_tool("status.py", str(tmp_path), timeout=60)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines()[-1].startswith(f"error: No runs at or below {tmp_path}")
