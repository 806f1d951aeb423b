"""The tables and headers are what results/paper.json makes them."""

import json
import re
from fnmatch import fnmatchcase

from conftest import REPOSITORY
from test_tools import run_tool


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
