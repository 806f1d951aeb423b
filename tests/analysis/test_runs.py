import json
import math

import pytest
from made_runs import make_published, make_run

from rethink_pretrain.analysis.runs import RANDOM, UNKNOWN, read_metrics, read_run, read_runs, series
from rethink_pretrain.errors import UserError


def write(path, rows, tail=""):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return path


def test_rows_repeated_by_a_resume_count_once_and_the_later_wins(tmp_path):
    path = write(
        tmp_path / "metrics.json",
        [
            {"iteration": 19, "loss": 3.0},
            {"iteration": 39, "loss": 2.0, "bbox/AP": 1.0},
            {"iteration": 19, "loss": 2.5},
            {"iteration": 39, "loss": 1.5},
        ],
    )
    assert read_metrics(path) == [
        {"iteration": 19, "loss": 2.5},
        {"iteration": 39, "loss": 1.5, "bbox/AP": 1.0},
    ]


def test_a_last_line_cut_off_by_a_kill_is_left_out(tmp_path):
    path = write(tmp_path / "metrics.json", [{"iteration": 1, "x": 1}], tail='{"iteration": 2, "x"')
    assert [row["iteration"] for row in read_metrics(path)] == [1]


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"loss": 1}'])
def test_anything_else_is_named_with_its_line(tmp_path, line):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 1}\n' + line + '\n{"iteration": 2}\n')
    with pytest.raises(UserError, match=r"metrics\.json, line 2"):
        read_metrics(path)


def test_a_missing_file_says_where_runs_write_it(tmp_path):
    with pytest.raises(UserError, match="OUTPUT_DIR"):
        read_metrics(tmp_path / "metrics.json")


def test_series_leaves_out_what_was_not_measured():
    rows = [
        {"iteration": 1, "a": 5.0},
        {"iteration": 2},
        {"iteration": 3, "a": math.nan},
        {"iteration": 4, "a": 0},
    ]
    assert series(rows, "a") == ([1, 4], [5.0, 0])


def test_a_file_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / "metrics.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"metrics\.json"):
        read_metrics(tmp_path / "metrics.json")


class TestRuns:
    def test_all_files(self, tmp_path):
        sessions = [{"seed": 5, "recipe": {"images_per_step": 16}}]
        run = read_run(
            make_run(tmp_path / "a", weights="x/R-50.pth", sessions=sessions, RETHINK__SCHEDULE="6x")
        )
        assert (run.name, run.arm, run.images_per_step, run.length) == ("a", "R-50.pth", 16, 200)
        assert (run.schedule, run.seed, run.sessions) == ("6x", 1, sessions)
        assert (len(run.rows), run.config["MODEL.BACKBONE.FREEZE_AT"]) == (11, 2)

    def test_of_the_host(self, tmp_path):
        """Neither run.json nor our keys."""
        run = read_run(make_run(tmp_path / "a"))
        assert (run.arm, run.schedule, run.images_per_step, run.sessions) == (
            RANDOM,
            "200 iterations",
            16,
            [],
        )

    def test_metrics_alone(self, tmp_path):
        run = read_run(make_run(tmp_path / "a", config=False))
        assert (run.arm, run.schedule) == (UNKNOWN, "unknown length")
        assert (run.images_per_step, run.length, run.seed, run.config) == (None, None, None, {})

    def test_a_file_alone(self, tmp_path):
        """Two in one folder, called after the files; a metrics.json is the run in its folder."""
        paths = [make_published(tmp_path / f"{name}.json", length=400, period=100) for name in "ab"]
        runs = read_runs(paths, ["random", "tuned"])
        assert [(run.name, run.arm, run.folder) for run in runs] == [
            ("a", "random", None),
            ("b", "tuned", None),
        ]
        folder = make_run(tmp_path / "run")
        assert read_run(folder / "metrics.json") == read_run(folder)
        assert read_run(folder).folder == folder
        with pytest.raises(UserError, match="twice"):
            read_runs([folder / "metrics.json", folder])

    def test_published_metrics(self, tmp_path):
        """Rows without a loss, NaN, and iterations that come twice."""
        run = read_run(make_published(tmp_path / "zoo.json", length=400, period=100))
        iterations, _ = series(run.rows, "bbox/AP")
        assert iterations == [99, 199, 299, 400] and run.steps_done(iterations) == [100, 200, 300, 400]
        assert [row["iteration"] for row in run.rows] == [*range(19, 400, 20), 400]
        assert series(run.rows, "bbox/APs") == ([], [])

    def test_a_seed_left_to_chance(self, tmp_path):
        assert read_run(make_run(tmp_path / "a", SEED=-1)).seed is None
        assert read_run(make_run(tmp_path / "b", SEED=-1, sessions=[{"seed": 3}])).seed == 3

    def test_the_batch_in_use(self, tmp_path):
        """It may be scaled after config.yaml is written, and by a resume."""
        recipes = [{"recipe": {"images_per_step": batch}} for batch in (32, 64)]
        assert read_run(make_run(tmp_path / "a", sessions=recipes[:1])).images_per_step == 32
        assert read_run(make_run(tmp_path / "b", sessions=recipes)).images_per_step is None
        scaled = make_run(tmp_path / "c", SOLVER__REFERENCE_WORLD_SIZE=8)
        assert read_run(scaled).images_per_step is None

    @pytest.mark.parametrize("config", [True, False])
    def test_steps_behind_a_row(self, tmp_path, config):
        """After iterations 0, 99, 199 and the end, whose row is that of iteration 200."""
        run = read_run(make_run(tmp_path / "a", config=config))
        assert run.steps_done([0, 99, 199, 200]) == [1, 100, 200, 200]

    def test_names_tell_apart(self, tmp_path):
        folders = [
            make_run(tmp_path / "x" / "seed0"),
            make_run(tmp_path / "y" / "seed0", weights="one/final.pth"),
            make_run(tmp_path / "y" / "seed1", weights="two/final.pth"),
            make_run(tmp_path / "y" / "seed2", weights="two/final.pth"),
        ]
        runs = read_runs(folders)
        assert [run.name for run in runs] == ["x/seed0", "y/seed0", "y/seed1", "y/seed2"]
        assert [run.arm for run in runs] == [RANDOM, "one/final.pth", "two/final.pth", "two/final.pth"]
        assert [run.name for run in read_runs(folders[2:])] == ["seed1", "seed2"]
        assert {run.arm for run in read_runs(folders[2:])} == {"final.pth"}

    def test_files_that_all_runs_call_alike_go_by_their_folders(self, tmp_path):
        files = ["output/moco/backbone.pth", "output/labels/backbone.pth", "model_final.pth"]
        folders = [make_run(tmp_path / f"run{i}", weights=file) for i, file in enumerate(files)]
        assert [run.arm for run in read_runs(folders)] == ["moco", "labels", "model_final.pth"]

    @pytest.mark.parametrize(
        ("file", "text", "message"),
        [
            ("metrics.json", "", "no rows"),
            ("config.yaml", "a: [", "YAML"),
            ("config.yaml", "!!python/object:os.system {}", "YAML"),
            ("config.yaml", "- 1", "no keys"),
            ("config.yaml", "SOLVER: {MAX_ITER: many}", r"SOLVER\.MAX_ITER is 'many'"),
            ("config.yaml", "MODEL: {WEIGHTS: null}", r"MODEL\.WEIGHTS is None"),
            ("run.json", "{", "not JSON"),
            ("run.json", '{"sessions": [1]}', "sessions"),
        ],
    )
    def test_what_cannot_be_read_is_one_line(self, tmp_path, file, text, message):
        run = make_run(tmp_path / "a")
        (run / file).write_text(text)
        with pytest.raises(UserError, match=message) as error:
            read_run(run)
        assert file in str(error.value) and "\n" not in str(error.value)

    def test_no_run_at_all(self, tmp_path):
        with pytest.raises(UserError, match=r"metrics\.json does not exist"):
            read_run(tmp_path)
        run = make_run(tmp_path / "a")
        with pytest.raises(UserError, match="twice"):
            read_runs([run, tmp_path / "a" / ".." / "a"])
