"""tools/compare_runs.py as a user starts it."""

import importlib.util
import sys

import pytest
from conftest import REPOSITORY
from made_runs import make_run

from rethink_pretrain.analysis.curves import AXES

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
    said, path = out.splitlines()
    assert said.startswith("Box AP: scratch (from random weights) ends at 20.0, and tuned (from R-50.pkl)")
    assert path == str(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<title>Comparison of scratch and tuned</title>" in page and said in page
    assert "Box AP against images seen" in page
    assert compare(*runs, "--against", "hours")[0] == 0
    assert "Box AP against hours of training steps" in (tmp_path / "page.html").read_text()


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
    assert page.index("Warning: ") < page.index("SOLVER.BASE_LR is 0.02") < page.index("What the numbers say")


@pytest.mark.parametrize("extra", [["--metric", "bbox/ap"], ["--against", "epochs"], ["nowhere"]])
def test_mistakes_are_one_line(compare, tmp_path, extra):
    code, out, err = compare(make_run(tmp_path / "a"), make_run(tmp_path / "b"), *extra)
    assert (code, out) == (1, "")
    assert err.startswith("error: ") and err.count("\n") == 1


def test_one_run_is_no_comparison(compare, tmp_path):
    assert "give two or more" in compare(make_run(tmp_path / "a"))[2]
