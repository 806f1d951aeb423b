"""The notebook of docs/ runs from its first cell to its last, as a user runs it."""

import re

import nbformat
import pytest
from conftest import REPOSITORY
from nbclient import NotebookClient

NOTEBOOK = REPOSITORY / "docs" / "notebooks" / "own_data.ipynb"


def read(schedule: str = "40ep") -> nbformat.NotebookNode:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    (cell,) = (c for c in notebook.cells if 'SCHEDULE = "40ep"' in c.source)
    cell.source = cell.source.replace("40ep", schedule)
    return notebook


def run(notebook: nbformat.NotebookNode, folder) -> tuple[float, float]:
    """Execute in `folder`; raises where a cell fails. Box and mask AP that its last cell prints."""
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    text = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    match = re.fullmatch(r"box AP (\d+\.\d), mask AP (\d+\.\d)\n", text)
    assert match, text
    return float(match[1]), float(match[2])


def count_pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.fixture(autouse=True)
def temporary_files(tmp_path, monkeypatch):
    """Where the notebook's temporary folder and Jupyter's files go."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))


def test_every_cell_runs(tmp_path):
    """With a fiftieth of the training: AP is a number, if a small one."""
    notebook = read("1ep")
    box, mask = run(notebook, tmp_path)
    assert 0 <= box <= 100 and 0 <= mask <= 100
    assert count_pictures(notebook) == 4


@pytest.mark.slow
def test_it_learns(tmp_path):
    """As committed. A detector that knows nothing has AP 0; ours had 22 and 20."""
    box, mask = run(read(), tmp_path)
    assert box > 8 and mask > 8


def test_committed_without_outputs():
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert all(not c.outputs and c.execution_count is None for c in cells if c.cell_type == "code")
