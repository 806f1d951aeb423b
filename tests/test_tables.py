"""The tables and headers are what results/paper.json makes them."""

import importlib.util
import json
import re
from fnmatch import fnmatchcase

import pytest
from conftest import REPOSITORY
from test_tools import run_tool

from rethink_pretrain.analysis.paper import read_paper


def test_up_to_date():
    done = run_tool("make_tables.py", "--check", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_config_has_a_row():
    text = (REPOSITORY / "configs" / "README.md").read_text()
    rows = set(re.findall(r"^\| `([^`]+)` \| [^|]+ \| [^|]+ \| [^|]+ \|$", text, re.MULTILINE))
    configs = {
        path.relative_to(REPOSITORY / "configs").with_suffix("").as_posix()
        for path in (REPOSITORY / "configs").rglob("*.yaml")
        if not {"_overlay", "sweeps", "toy"} & set(path.parts)
    }
    assert configs <= rows


def test_every_overlay_is_explained():
    text = (REPOSITORY / "configs" / "README.md").read_text().partition("## Overlays")[2]
    named = set(re.findall(r"`(\w+\*?)`", text))
    for path in (REPOSITORY / "configs" / "_overlay").glob("*.yaml"):
        assert path.stem in named or any(fnmatchcase(path.stem, name) for name in named if "*" in name)


def test_every_sweep_is_found_from_its_header():
    for path in (REPOSITORY / "configs" / "sweeps").glob("*.yaml"):
        run = re.search(r"^# Run: python tools/sweep.py (\S+) --print$", path.read_text(), re.MULTILINE)
        assert run[1] in (path.stem, f"configs/sweeps/{path.name}")


def test_x152_with_pretraining_is_told_as_in_the_paper():
    """It prints 50.3 / 42.5 "with pre-training" on val2017, and not of which length, cascade or test aug."""
    numbers = json.loads((REPOSITORY / "results" / "paper.json").read_text())["numbers"]
    (row,) = [n for n in numbers if n["metrics"] == {"box AP": 50.3, "mask AP": 42.5}]
    assert (row["row"], row["label"]) == ("X152, val2017, with pre-training", "verified")
    assert "inferred" in row["note"]
    assert "INFERRED" in (REPOSITORY / "configs" / row["config"]).read_text()


def test_a_row():
    """Table 1 of the paper."""
    text = (REPOSITORY / "configs" / "README.md").read_text()
    assert "| `scratch_6x` | table1, table2, figure1, figure5 | box AP 41.3 |" in text


COSTS = (REPOSITORY / "docs" / "reproducing.md").read_text()


@pytest.fixture(scope="module")
def refill():
    """What the tool makes of a text of docs/reproducing.md."""
    spec = importlib.util.spec_from_file_location("make_tables", REPOSITORY / "tools" / "make_tables.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    page = "docs/reproducing.md"
    assert page in tool.PAGES  # so that --check looks at it
    lengths = {config: tool.read_length(config) for config in tool.list_configs()}
    return lambda text: tool.fill(text, page, read_paper(REPOSITORY / "results" / "paper.json"), lengths)


@pytest.mark.parametrize("cell", ["| 163 | 51 |", "| 1,059 | 8,474 |", "| all, each once | 73 |"])
def test_an_old_cost_is_noticed(refill, cell):
    """A number that was edited by hand, or that is older than the configs, is written anew."""
    assert COSTS.count(cell) >= 1
    assert refill(COSTS.replace(cell, "| 1 | 1 |")) == COSTS


def test_costs_by_hand():
    """540,000 iterations: x 1.087 s and 0.338 s from scratch, x 1.033 s and 0.309 s fine-tuned."""
    assert "| `scratch_6x` | 540,000 | 163 | 51 |" in COSTS
    assert "| `finetune_6x` | 540,000 | 155 | 46 |" in COSTS
    # Figure 1, 2x to 6x: 1.8 M iterations of each arm; Detectron's fine-tuned 2x has a number of its own.
    scratch, finetune = 1_800_000 * 1.087, 180_000 * 1.017 + 1_620_000 * 1.033
    assert f"| fig1 | 10 | {(scratch + finetune) / 3600:,.0f} |" in COSTS
    assert f"| {(1_800_000 * 0.338 + 1_800_000 * 0.309) / 3600:.0f} | 2,588 |" in COSTS
