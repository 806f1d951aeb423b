"""What starting costs: which modules are loaded when, and how tools end that are stopped early."""

import json
import os
import subprocess
import sys

import pytest
from conftest import REPOSITORY

HEAVY = (
    "torch",
    "torchvision",
    "detectron2",
    "fvcore",
    "scipy",
    "matplotlib",
    "pandas",
    "shapely",
    "pycocotools",
)
REGISTERED = """
from detectron2.modeling import BACKBONE_REGISTRY
assert "build_rethink_resnet_fpn_backbone" in BACKBONE_REGISTRY
"""


def python(code, **env):
    """Run in a process of its own; what it printed."""
    words = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(words, env=os.environ | env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def start_tool(name, *args, **env):
    words = [sys.executable, str(REPOSITORY / "tools" / name), *map(str, args)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, env=os.environ | env, **pipes)


def test_light_parts_load_nothing_heavy():
    names = ("analysis.runs", "analysis.status", "command_line", "errors", "files", "progress", "solver")
    code = ", ".join(f"rethink_pretrain.{name}" for name in names)
    assert python(f"import {code}, sys; print([name for name in {HEAVY} if name in sys.modules])") == "[]\n"


class TestRegistration:
    """Importing the package is enough for the host's own scripts, in whatever order."""

    @pytest.mark.parametrize(
        "code",
        [
            "import rethink_pretrain",
            "import detectron2.modeling, rethink_pretrain",
            "import rethink_pretrain.compat, rethink_pretrain.layers",
            "import rethink_pretrain; assert rethink_pretrain.modeling.heads",
        ],
    )
    def test_order(self, code):
        python(code + REGISTERED)

    def test_of_other_names_python_knows_nothing(self):
        import rethink_pretrain

        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = rethink_pretrain.nothing


class TestEnds:
    def test_ctrl_c_while_libraries_load_is_one_line(self, tmp_path):
        """A torch that gets the signal of Ctrl-C as it loads."""
        fake = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(10)\n"
        (tmp_path / "torch.py").write_text(fake)
        config = REPOSITORY / "configs" / "scratch_6x.yaml"
        for name, words in (("train_net.py", "Stopped. --resume goes on"), ("doctor.py", "Stopped.")):
            tool = start_tool(name, "--config-file", config, PYTHONPATH=str(tmp_path))
            out, err = tool.communicate(timeout=60)
            assert (tool.returncode, out, len(err.splitlines())) == (130, "", 1) and err.startswith(words)

    def test_without_the_host_is_one_line(self, tmp_path):
        """A Detectron2 that is not there, as Python says it."""
        (tmp_path / "detectron2.py").write_text(
            "raise ModuleNotFoundError(\"No module named 'detectron2'\", name='detectron2')\n"
        )
        config = REPOSITORY / "configs" / "scratch_6x.yaml"
        tool = start_tool("train_net.py", "--config-file", config, PYTHONPATH=str(tmp_path))
        _, err = tool.communicate(timeout=60)
        assert (tool.returncode, len(err.splitlines())) == (1, 1)
        assert "tools/install_detectron2.py" in err

    @pytest.mark.parametrize(
        "words",
        [
            ("count_samples.py", "--paper"),
            ("simulate_scaling.py", "--help"),
            ("plan.py", "--help"),
            ("status.py", "--json", "FOLDER"),
            ("sweep.py", "paper_figure_1"),
        ],
    )
    def test_a_reader_that_leaves(self, words, tmp_path):
        """As `head -1` does; here before anything is written."""
        if words[0] == "sweep.py":
            words = (words[0], sorted((REPOSITORY / "configs" / "sweeps").glob("*.yaml"))[0])
        tool = start_tool(*(tmp_path if word == "FOLDER" else word for word in words))
        tool.stdout.close()
        err = tool.stderr.read()
        # argparse and rich, too, see to a pipe that broke, with statuses of their own.
        assert tool.wait(60) in (0, 1, 141) and "Traceback" not in err and "Exception" not in err

    def test_other_broken_pipes_are_bugs(self):
        code = """
from rethink_pretrain.command_line import tool
@tool()
def main():
    raise BrokenPipeError("of another process")
try:
    main()
except BrokenPipeError:
    print("bug")
"""
        assert python(code) == "bug\n"


def test_sweeps_are_told_without_torch(tmp_path):
    """As are all tools that only read files."""
    sweep = sorted((REPOSITORY / "configs" / "sweeps").glob("*.yaml"))[0]
    lines = {"sweep.py": [str(sweep)], "count_samples.py": ["--paper"], "simulate_scaling.py": ["--help"]}
    for name, args in lines.items():
        code = f"""
import json, runpy, sys
sys.argv = {[name, *args]!r}
try:
    runpy.run_path({str(REPOSITORY / "tools" / name)!r}, run_name="__main__")
except SystemExit:
    pass
print(json.dumps([name for name in ("torch", "detectron2") if name in sys.modules]))
"""
        assert json.loads(python(code).splitlines()[-1]) == []
