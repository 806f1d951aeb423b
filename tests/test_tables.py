"""The tables and headers are what results/paper.json makes them."""

import re

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


def test_a_row():
    """Table 1 of the paper."""
    text = (REPOSITORY / "configs" / "README.md").read_text()
    assert "| `scratch_6x` | table1, table2, figure1, figure5 | box AP 41.3 |" in text
