"""tools/compare_runs.py as a user starts it."""

import importlib.util
import json
import sys

import pytest
from conftest import REPOSITORY
from made_runs import make_published, make_run, make_study

from rethink_pretrain.analysis.curves import AXES
from rethink_pretrain.analysis.runs import read_run

TOOL = REPOSITORY / "tools" / "compare_runs.py"


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("compare_runs", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def compare(tool, monkeypatch, capsys, tmp_path):
    """The tool in this process, writing tmp_path/page.html: exit status, stdout, stderr."""

    def run(*args):
        words = ["compare_runs.py", *map(str, args), "--output", str(tmp_path / "page.html")]
        monkeypatch.setattr(sys, "argv", words)
        code = 0
        try:
            tool.main()
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


def test_the_axes_are_those_of_the_curves(tool):
    assert set(tool.AXES) == set(AXES)


def test_runs_of_the_host(compare, tmp_path):
    runs = [make_run(tmp_path / "scratch"), make_run(tmp_path / "tuned", weights="R-50.pkl", aps=(9.0, 19.0))]
    code, out, err = compare(*runs)
    assert (code, err) == (0, "")
    said, *table, path = out.splitlines()
    assert said.startswith("Undecided between random weights and R-50.pkl")
    assert table[1].split() == ["start", "200", "iterations"] and "20.0 (1)" in table[4]
    assert path == str(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<title>Random weights against R-50.pkl</title>" in page and said in page
    assert "Box AP against images seen" in page
    assert "no interval over images: its folder has no inference/coco_instances_results.json" in page
    assert compare(*runs, "--against", "hours")[0] == 0
    assert "Box AP against hours of training steps" in (tmp_path / "page.html").read_text()


def test_a_folder_of_runs_with_seeds(compare, tmp_path):
    """The figures, the tables and the comparison as files, too."""
    make_study(tmp_path / "study", lengths=(1, 3), seeds=(0, 1))
    figures, data = tmp_path / "figures", tmp_path / "data.json"
    options = ("--figures", figures, "--json", data, "--reference", "random", "--margin", "1.5")
    code, out, err = compare(tmp_path / "study", *options)
    assert (code, err) == (0, "")
    found = json.loads(data.read_text())
    assert (found["reference"], found["margin"], found["verdict"]) == ("random", 1.5, out.splitlines()[0])
    assert [len(cell["values"]) for cell in found["cells"]] == [2, 2, 2, 2]
    names = {path.name for path in figures.iterdir()}
    assert {"the_answer_01.png", "the_answer_01.svg", "curves_01.csv", "by_metric_01.csv"} <= names
    assert len((figures / "curves_01.csv").read_text().splitlines()) == 1 + 4 * 5 + 4 * 15


def test_published_metrics_with_named_arms(compare, tmp_path):
    """Files that this project has not written. A name is asked for, and nothing else."""
    sets = {"random": (20, 0), "R-50": (15, 8)}
    files = {
        arm: make_published(
            tmp_path / f"{arm}_{length}.json", length=length, period=100, top=top, start=start
        )
        for length in (400, 800)
        for arm, (top, start) in sets.items()
    }
    code, _, err = compare(*files.values())
    assert code == 1 and "ARM=RUN" in err and err.count("\n") == 1
    words = [f"{path.stem.split('_')[0]}={path}" for path in sorted(tmp_path.glob("*.json"))]
    code, out, err = compare(*words)
    assert (code, err) == (0, "") and "400 iterations" in out and "800 iterations" in out
    page = (tmp_path / "page.html").read_text()
    assert "so that their recipes are unknown" in page and "Warning" not in page


def test_one_seed_by_a_bootstrap_over_images(compare, tmp_path):
    """Of runs whose results are there; --annotations names what they were evaluated on."""
    images = [{"id": i, "width": 64, "height": 64, "file_name": f"{i}.jpg"} for i in range(1, 13)]
    box = {"category_id": 1, "bbox": [0, 0, 20, 20]}
    objects = [{**box, "id": i, "image_id": i, "area": 400, "iscrowd": 0} for i in range(1, 13)]
    truth = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "val.json").write_text(json.dumps(truth))
    runs = []
    # Objects found, and the recalls of 101 that they reach.
    for number, recalls, weights in ((3, 26, ""), (9, 76, "w.pth")):
        run = make_run(tmp_path / f"found{number}", aps=(1.0, 100 * recalls / 101), weights=weights)
        (run / "inference").mkdir()
        results = [{**box, "image_id": i, "score": 0.9 - i / 100} for i in range(1, number + 1)]
        (run / "inference" / "coco_instances_results.json").write_text(json.dumps(results))
        runs.append(run)
    assert "Undecided" in compare(*runs)[1]
    code, out, _ = compare(*runs, "--annotations", tmp_path / "val.json")
    assert code == 0 and "on these validation images" in out and "behind" in out
    assert "Hollow: an interval over validation images" in (tmp_path / "page.html").read_text()


def test_other_recipes_need_force(compare, tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", SOLVER__BASE_LR=0.01)]
    code, out, err = compare(*runs)
    (line,) = err.splitlines()
    assert (code, out) == (1, "") and line.startswith("error: ")
    assert "SOLVER.BASE_LR is 0.02 in a, 0.01 in b" in line and "--force" in line
    assert not (tmp_path / "page.html").exists()

    code, _, err = compare(*runs, "--force")
    assert (code, err) == (0, "")
    page = (tmp_path / "page.html").read_text()
    assert page.index("Warning: ") < page.index("SOLVER.BASE_LR is 0.02") < page.index("The answer")


@pytest.mark.parametrize(
    "extra", [["--metric", "bbox/ap"], ["--against", "epochs"], ["--reference", "w"], ["nowhere"]]
)
def test_mistakes_are_one_line(compare, tmp_path, extra):
    code, out, err = compare(make_run(tmp_path / "a"), make_run(tmp_path / "b"), *extra)
    assert (code, out) == (1, "")
    assert err.startswith("error: ") and err.count("\n") == 1


def test_annotations_of_a_registered_set(tool, datasets, tmp_path):
    def annotations(number, **keys):
        return tool.find_annotations(read_run(make_run(tmp_path / str(number), **keys)))

    assert annotations(0, DATASETS__TEST=["toy_val"]) == datasets / "toy" / "val.json"
    assert annotations(1, RETHINK__DATA={"VAL_JSON": str(datasets / "toy" / "val.json")}).is_file()
    for number, names in enumerate([["nobody"], ["toy_val", "toy_train"], ["toy_val@x"], []], 2):
        assert annotations(number, DATASETS__TEST=names) is None


def test_one_run_is_no_comparison(compare, tmp_path):
    assert "give two or more" in compare(make_run(tmp_path / "a"))[2]
