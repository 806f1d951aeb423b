"""Sweep files expand to runs that train_net.py takes, and a run's files say how far it is."""

import json
import shlex
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY, SHORT_RUN, TOY_CONFIG
from test_tools import run_tool

from rethink_pretrain.analysis.sweeps import State, read_state, read_sweep
from rethink_pretrain.config import load_config
from rethink_pretrain.errors import UserError

SWEEPS = sorted((REPOSITORY / "configs" / "sweeps").glob("*.yaml"))


def write_sweep(folder, *runs):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"runs": list(runs)}, sort_keys=False))
    return path


def write_run(folder, *, total=10, end=None, rows=()):
    """The files of a run; `end` None is one that was killed."""
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump({"SOLVER": {"MAX_ITER": total}}))
    session = {"start_iter": 0} | ({} if end is None else {"end_iter": end})
    (folder / "run.json").write_text(json.dumps({"sessions": [session]}))
    (folder / "metrics.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


class TestSweepFiles:
    @pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
    def test_loads(self, path):
        """Every run's config resolves with its overrides."""
        for run in read_sweep(path):
            cfg = load_config(run.config, opts=run.opts)
            assert str(run.output) == cfg.OUTPUT_DIR

    def test_table_1_has_twenty_runs(self):
        assert len(read_sweep(REPOSITORY / "configs/sweeps/table1.yaml")) == 20

    def test_figure_7(self):
        """35k at 2x to 6x, 10k at 60k to 220k iterations with a drop 20k before the end, both arms."""
        runs = read_sweep(REPOSITORY / "configs/sweeps/fig7.yaml")
        lengths = [load_config(run.config, opts=run.opts).SOLVER.MAX_ITER for run in runs]
        assert sorted(lengths) == sorted(
            [270_000]
            + 2 * [180_000, 270_000, 360_000, 450_000, 540_000]
            + 2 * [60_000, 100_000, 140_000, 180_000, 220_000]
        )


class TestExpand:
    def test_names_and_words(self, tmp_path):
        path = write_sweep(
            tmp_path,
            {
                "config": str(TOY_CONFIG),
                "set": {"RETHINK.SCHEDULE": "32 images", "INPUT.MIN_SIZE_TRAIN": [64]},
                "seeds": [0, 3],
            },
        )
        runs = read_sweep(path, tmp_path / "out")
        stem = TOY_CONFIG.stem
        assert [run.name for run in runs] == [
            f"{stem}_SCHEDULE_32-images_MIN_SIZE_TRAIN_64_seed{seed}" for seed in (0, 3)
        ]
        assert runs[1].opts == [
            *("RETHINK.SCHEDULE", "32 images", "INPUT.MIN_SIZE_TRAIN", "[64]", "SEED", "3"),
            *("OUTPUT_DIR", str(tmp_path / "out" / "mine" / runs[1].name)),
        ]

    @pytest.mark.parametrize(
        ("runs", "message"),
        [
            ([], "is a list"),
            ([{"set": {}}], "is no run"),
            ([{"config": str(TOY_CONFIG), "seed": 1}], "is no run"),
            ([{"config": "nowhere.yaml"}], "does not exist"),
            ([{"config": str(TOY_CONFIG), "set": {"SEED": 1}}], "SEED is the sweep's"),
            ([{"config": str(TOY_CONFIG)}, {"config": str(TOY_CONFIG)}], "two runs are called"),
        ],
    )
    def test_mistakes(self, tmp_path, runs, message):
        with pytest.raises(UserError, match=message):
            read_sweep(write_sweep(tmp_path, *runs))

    def test_no_file(self, tmp_path):
        with pytest.raises(UserError, match="not a sweep file"):
            read_sweep(tmp_path / "nothing.yaml")


class TestState:
    def test_pending(self, tmp_path):
        assert read_state(tmp_path / "nothing") == State("pending")

    def test_killed(self, tmp_path):
        run = write_run(tmp_path / "run", rows=[{"iteration": 3, "total_loss": 1.0}])
        assert read_state(run) == State("unfinished", 4, 10)

    def test_finished(self, tmp_path):
        rows = [{"iteration": 4, "bbox/AP": 20.0}, {"iteration": 9, "bbox/AP": 30.0, "segm/AP": 25.0}]
        assert read_state(write_run(tmp_path / "run", end=10, rows=rows)) == State("finished", 10, 10, 30.0)

    def test_stopped_early(self, tmp_path):
        run = write_run(tmp_path / "run", end=6, rows=[{"iteration": 5, "bbox/AP": 20.0}])
        session = {"start_iter": 0, "end_iter": 6, "ended": "stopped: bbox/AP no longer rises"}
        (run / "run.json").write_text(json.dumps({"sessions": [session]}))
        assert read_state(run) == State("finished", 6, 10, 20.0)

    def test_died_in_its_last_evaluation(self, tmp_path):
        rows = [{"iteration": 4, "bbox/AP": 20.0}, {"iteration": 9, "total_loss": 1.0}]
        assert read_state(write_run(tmp_path / "run", end=10, rows=rows)).kind == "unfinished"

    def test_died_before_its_end(self, tmp_path):
        run = write_run(tmp_path / "run", end=5, rows=[{"iteration": 4, "bbox/AP": 20.0}])
        assert read_state(run).kind == "unfinished"

    def test_cut_off_files(self, tmp_path):
        run = write_run(tmp_path / "run", rows=[{"iteration": 3, "total_loss": 1.0}])
        (run / "run.json").write_text('{"sessions": [')
        assert read_state(run).kind == "unfinished"


class TestTool:
    def test_print(self, tmp_path):
        done = run_tool("sweep.py", str(write_sweep(tmp_path, {"config": str(TOY_CONFIG)})), timeout=60)
        words = shlex.split(done.stdout)
        assert words[0] == "python" and words[1].endswith("train_net.py")
        assert Path(words[words.index("--config-file") + 1]).resolve() == TOY_CONFIG

    def test_by_name(self):
        done = run_tool("sweep.py", "fig6", timeout=60)
        assert (
            done.returncode == 0 and done.stdout.count("keypoint_R50_gn_") == 8
        )  # config and folder of four

    def test_one_line_error(self, tmp_path):
        done = run_tool("sweep.py", str(tmp_path / "nothing.yaml"), timeout=60)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr

    @pytest.mark.slow
    def test_run_skip_and_status(self, datasets, tmp_path):
        short = dict(zip(SHORT_RUN[::2], SHORT_RUN[1::2]))
        del short["SEED"]
        sweep = write_sweep(tmp_path, {"config": str(TOY_CONFIG), "set": short})
        words = ("sweep.py", str(sweep), "--output", str(tmp_path / "out"))
        first = run_tool(*words, "--run", timeout=600)
        assert first.returncode == 0, first.stdout + first.stderr
        assert "finished, AP" in first.stdout
        assert "finished before" in run_tool(*words, "--run", timeout=60).stdout
        status = run_tool(*words, "--status", timeout=60).stdout
        assert "6/6" in status and "1 finished" in status

    @pytest.mark.slow
    def test_failing_run(self, datasets, tmp_path):
        sweep = write_sweep(tmp_path, {"config": str(TOY_CONFIG), "set": {"MODEL.FPN.NORM": "XX"}})
        done = run_tool("sweep.py", str(sweep), "--run", "--output", str(tmp_path / "out"), timeout=120)
        assert done.returncode == 1
        assert "MODEL.FPN.NORM" in done.stderr and "ended with status 1" in done.stderr.splitlines()[-1]
