"""Trainings as processes: what they say, their bars, their failures, several at once."""

import textwrap

import pytest
from terminal import Terminal

from rethink_pretrain.analysis.sweeps import State
from rethink_pretrain.engine import jobs
from rethink_pretrain.engine.jobs import Job, run_jobs
from rethink_pretrain.errors import UserError


class TestRunJobs:
    """With a script in place of the training; it writes one row at a time."""

    SCRIPT = """
        import json, os, pathlib, sys, time
        output = pathlib.Path(sys.argv[1])
        output.mkdir()
        (output / "config.yaml").write_text("SOLVER: {MAX_ITER: 10}")
        for iteration in (3, 9):
            with (output / "metrics.json").open("a") as file:
                print(json.dumps({"iteration": iteration, "bbox/AP": 5.0}), file=file)
            time.sleep(0.3)
        (output / "run.json").write_text('{"sessions": [{"end_iter": 10}]}')
        print("said", os.environ.get("OMP_NUM_THREADS"))
        raise SystemExit(int(sys.argv[2]))
    """

    @pytest.fixture
    def job(self, tmp_path, monkeypatch):
        """The job of that name, which ends with that status."""
        monkeypatch.setattr(jobs, "POLL_SECONDS", 0.05)
        monkeypatch.setattr("rethink_pretrain.progress.REDRAW_PERIOD", 0)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        (tmp_path / "script.py").write_text(textwrap.dedent(self.SCRIPT))
        script = str(tmp_path / "script.py")
        return lambda name, status=0: Job(name, [script, str(tmp_path / name), str(status)], tmp_path / name)

    def test_a_bar_over_its_iterations(self, job, tmp_path):
        with Terminal() as terminal:
            (state,) = run_jobs([job("r")])
        assert state == State("finished", 10, 10, 5.0)
        shown = [" ".join(line.split()[2:3]) for line in terminal.lines if line.startswith("r ")]
        assert shown[0] == "0/?" and "4/10" in shown and shown[-1] == "10/10"
        assert (tmp_path / "r.log").read_text() == "said None\n"

    def test_failure(self, job, tmp_path, capsys):
        failing, other = job("r", 2), job("s")
        with pytest.raises(UserError, match=r"r ended with status 2; all it said is in .*r\.log"):
            run_jobs([failing, other])
        assert "  said None\n" in capsys.readouterr().err
        assert not other.output.exists()

    def test_two_at_once_share_the_cores(self, job, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3, 4}, raising=False)
        three = [job(name) for name in "abc"]
        run_jobs(three, at_once=2)
        said = capsys.readouterr().out.splitlines()
        assert said[:2] == ["[1 of 3] a: training", "[2 of 3] b: training"]
        assert said.index("[3 of 3] c: training") >= 2
        assert sum(line.endswith(": finished, AP 5.00") for line in said) == 3
        assert (tmp_path / "a.log").read_text() == "said 2\n"
        run_jobs(three, at_once=2)
        assert capsys.readouterr().out.count("finished before") == 3
