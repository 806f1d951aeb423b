"""tools/check_configs.py on a folder of its own: what it prints, what it writes, and what it refuses."""

import importlib.util
import json
import sys

import pytest
from conftest import REPOSITORY, TOY_CONFIG
from detectron2.config import CfgNode

TOOL = REPOSITORY / "tools" / "check_configs.py"


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """The module, whose configs/ holds a.yaml and sub/b.yaml (half the box head), and nothing else."""
    spec = importlib.util.spec_from_file_location("check_configs", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "CONFIGS", tmp_path / "configs")
    monkeypatch.setattr(module, "GOLDEN", tmp_path / "models.json")
    monkeypatch.setattr(module, "PAPER", tmp_path / "paper.json")
    write_paper(module.PAPER, [])
    write(module.CONFIGS / "a.yaml", "SEED: 1")
    write(module.CONFIGS / "sub" / "b.yaml", "MODEL: {ROI_BOX_HEAD: {FC_DIM: 128}}")
    write(module.CONFIGS / "_overlay" / "o.yaml", "MODEL: 3")
    return module


def write_paper(path, experiments):
    path.write_text(json.dumps({"numbers": [], "experiments": experiments, "seconds_per_iteration": []}))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"# A.\n_BASE_: {TOY_CONFIG}\n{text}\n")


@pytest.fixture
def run(tool, monkeypatch, capsys):
    """Exit status, lines of stdout, lines of stderr that are the tool's."""

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["check_configs.py", *map(str, args)])
        with pytest.raises(SystemExit) as info:
            tool.main()
        out, err = capsys.readouterr()
        return info.value.code, out.splitlines(), [e for e in err.splitlines() if e.startswith("error:")]

    return call


def read(tool):
    return json.loads(tool.GOLDEN.read_text())


def test_update_then_check(tool, run):
    status, _, errors = run()
    assert status == 1
    assert errors == [
        f"error: {name}: not in the golden file (--update accepts)" for name in ("a.yaml", "sub/b.yaml")
    ]

    assert run("--update")[::2] == (0, [])
    golden = read(tool)
    counts = json.loads((REPOSITORY / "tests" / "golden" / "models.json").read_text())
    assert golden["a.yaml"] == counts["toy/scratch_mask_rcnn_R_18_FPN_gn.yaml"]
    # fc1 from 7 x 7 x 64, and the 9 class scores and 8 x 4 deltas, for 128 fewer outputs.
    assert golden["a.yaml"]["total"] - golden["sub/b.yaml"]["total"] == 128 * (7 * 7 * 64 + 1 + 9 + 32)

    status, lines, errors = run()
    assert (status, errors) == (0, [])
    header, first, second, summary = lines
    assert header.split() == ["config", "params/M", "frozen/M", "norms", "GFLOPs", "schedule", "experiment"]
    assert first.split()[:5] == ["a.yaml", "3.958", "0.000", "GN", "31"]
    assert first.endswith("700 it, drops 467 622, LR 0.05, batch 8                      -")
    assert second.split()[0] == "sub/b.yaml"
    assert summary == "2 configs, 2 different models"


def test_a_difference_is_one_line_with_the_values(tool, run):
    run("--update")
    golden = read(tool)
    golden["a.yaml"]["total"] += 1
    golden["a.yaml"]["gflops"] = 1.0
    tool.GOLDEN.write_text(json.dumps(golden))
    status, _, (error,) = run()
    assert status == 1
    total, gflops = golden["a.yaml"]["total"], golden["sub/b.yaml"]["gflops"]
    assert error.startswith(f"error: a.yaml: total {total - 1}, golden file {total}, gflops ")
    assert error.endswith("golden file 1.0 (--update accepts)") and gflops > 30


def test_a_config_that_is_gone(tool, run):
    run("--update")
    (tool.CONFIGS / "a.yaml").unlink()
    status, _, (error,) = run()
    assert status == 1 and "a.yaml: in the golden file, but not in configs/" in error
    assert run("--update")[0] == 0
    assert list(read(tool)) == ["sub/b.yaml"]


def test_some_configs(tool, run, tmp_path):
    """The others' entries stay, and what is not in configs/ is shown without one."""
    run("--update")
    before = tool.GOLDEN.read_text()
    write(tool.CONFIGS / "a.yaml", "MODEL: {ROI_BOX_HEAD: {FC_DIM: 64}}")
    write(tmp_path / "mine.yaml", "SEED: 3")
    status, lines, errors = run("--update", tool.CONFIGS / "a.yaml", tmp_path / "mine.yaml")
    assert (status, errors) == (0, []) and lines[2].split()[0] == str(tmp_path / "mine.yaml")
    old, new = json.loads(before), read(tool)
    assert new.keys() == old.keys() and new["sub/b.yaml"] == old["sub/b.yaml"]
    assert new["a.yaml"]["total"] < old["a.yaml"]["total"]
    assert run(tmp_path / "mine.yaml")[::2] == (0, [])


def test_broken_configs_do_not_hide_the_others(tool, run):
    write(tool.CONFIGS / "a.yaml", "MODEL: {WEIHGTS: x}")
    write(tool.CONFIGS / "c.yaml", "MODEL: {ROI_HEADS: {IN_FEATURES: [p9]}}")
    write(tool.CONFIGS / "d.yaml", "MODEL: {BACKBONE: {FREEZE_AT: 2}}")
    status, lines, errors = run()
    assert status == 1
    assert [line.split()[0] for line in lines[1:-1]] == ["sub/b.yaml"]
    assert errors[0].startswith("error: a.yaml:") and "Did you mean MODEL.WEIGHTS?" in errors[0]
    assert errors[1] == "error: c.yaml: KeyError('p9')"
    assert "d.yaml: MODEL.BACKBONE.FREEZE_AT 2 would freeze" in errors[2]


def test_frozen_random_weights(tool, run, monkeypatch):
    """Frozen by other means than the key that the config's own validation looks at."""
    import rethink_pretrain.config as config

    def load(path) -> CfgNode:
        cfg = config_load(path, opts=["MODEL.WEIGHTS", "x.pth", "MODEL.BACKBONE.FREEZE_AT", "1"])
        cfg.MODEL.WEIGHTS = ""
        return cfg

    config_load = config.load_config
    monkeypatch.setattr(config, "load_config", load)
    status, _, errors = run("--update", tool.CONFIGS / "a.yaml")
    stem = 7 * 7 * 3 * 32 + 2 * 32
    assert (status, errors) == (1, [f'error: a.yaml: {stem} parameters are frozen, but MODEL.WEIGHTS is ""'])


def test_experiments_of_the_paper(tool, run):
    rows = [
        {"id": "t1", "title": "One", "configs": ["a.yaml", "sub/b.yaml"]},
        {"id": "t2", "title": "Two", "configs": ["sub/b.yaml", "c.yaml"]},
        {"id": "t3", "title": "Three", "configs": []},
    ]
    write_paper(tool.PAPER, rows)
    status, lines, errors = run("--update")
    assert status == 1
    assert errors == [
        "error: c.yaml, listed for experiment t2, does not exist",
        "error: experiment t3 of the paper has no config",
    ]
    assert lines[1].endswith(" t1") and lines[2].endswith(" t1, t2")
    assert lines[-3:] == [
        f"paper, {name}: {count} configs" for name, count in (("t1", 2), ("t2", 2), ("t3", 0))
    ]

    tool.PAPER.write_text("{}")
    status, _, (error,) = run()
    assert status == 1 and "not the file of reported numbers" in error


def test_it_is_short():
    assert len(TOOL.read_text().splitlines()) <= 120
