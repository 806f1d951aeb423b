"""tools/simulate_scaling.py as a user starts it, and the tables of docs/scaling.md that it made."""

import importlib.util
import json
import re
import shlex
import sys
from types import ModuleType

import pytest
from conftest import REPOSITORY
from PIL import Image
from test_tools import run_tool

TOOL = REPOSITORY / "tools" / "simulate_scaling.py"
DOC = (REPOSITORY / "docs" / "scaling.md").read_text(encoding="utf-8")
COMMANDS = [
    block.replace("\\\n", " ").partition("simulate_scaling.py")[2]
    for block in re.findall(r"```\n(python tools/simulate_scaling\.py[^`]*)```", DOC)
]
R50 = str(REPOSITORY / "configs" / "scratch_6x.yaml")
R101 = str(REPOSITORY / "configs" / "paper" / "scratch_R101_gn_6x.yaml")
GIVEN = ["--config-file", R50, "--parameters", "45711152"]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("simulate_scaling", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tool, monkeypatch, capsys):
    def call(*args: str) -> str:
        monkeypatch.setattr(sys, "argv", ["simulate_scaling.py", *map(str, args)])
        tool.main()
        return capsys.readouterr().out

    return call


@pytest.fixture
def refusal(tool, monkeypatch, capsys):
    def call(*args: str) -> str:
        monkeypatch.setattr(sys, "argv", ["simulate_scaling.py", *map(str, args)])
        with pytest.raises(SystemExit) as error:
            tool.main()
        assert error.value.code in (1, 2)
        return capsys.readouterr().err

    return call


@pytest.mark.parametrize("command", COMMANDS, ids=range(len(COMMANDS)))
def test_the_document_is_what_the_tool_prints(command, run, monkeypatch, tmp_path):
    monkeypatch.chdir(REPOSITORY)
    words = [str(tmp_path / "x.png") if w.endswith(".png") else w for w in shlex.split(command)]
    text = run(*words).strip()
    assert text in DOC


def test_the_document_has_all_of_them():
    assert len(COMMANDS) == 4


def test_parameters_need_no_model(run):
    """45,711,152 parameters are those of the config: the same table without building it."""
    parts = ("--preset", "v100-detectron2")
    assert run(*GIVEN, *parts) == run("--config-file", R50, *parts)


def test_numbers_and_figure(run, tmp_path):
    """8 GPUs x 2 images: 540,000 iterations of 0.2 s at least, 30 h."""
    args = ("--seconds-per-image", "0.1", "--gpus", "8", "1")
    run(*GIVEN, *args, "--json", tmp_path / "out.json", "--figure", tmp_path / "out.png")
    content = json.loads((tmp_path / "out.json").read_text())
    one, eight = content["predictions"]
    assert (one["gpus"], eight["gpus"], eight["iterations"]) == (1, 8, 540_000)
    assert eight["run"]["compute"] == pytest.approx(30 * 3600)
    assert eight["hours"] == pytest.approx(sum(eight["run"].values()) / 3600)
    assert content["machine"]["inter_gb_s"] == 12.5
    with Image.open(tmp_path / "out.png") as image:
        assert image.width > image.height > 300 and len(image.getcolors(10**6)) > 100


def test_fixed_seconds_leave_less_for_images(run, tmp_path):
    args = ("--preset", "v100-detectron2", "--fixed-seconds", "0.1", "--gpus", "8")
    run(*GIVEN, *args, "--json", tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    (prediction,) = content["predictions"]
    assert prediction["seconds_per_iteration"] == pytest.approx(0.338)
    assert content["job"]["seconds_per_image"] < 0.12


@pytest.mark.parametrize(("preset", "seconds"), [("v100-detectron2", 0.338), ("p100-detectron", 1.087)])
def test_presets_repeat_what_they_are_made_of(run, preset, seconds):
    text = run(*GIVEN, "--preset", preset, "--gpus", "8")
    assert f"{seconds} s per iteration" in text and "predicts nothing" in text
    assert f"| 8 | 1 | 16 | {seconds:.3f} |" in text


def test_price(run):
    """30 h and 8 GPUs at 2 an hour; without a price there is no such column."""
    args = ("--seconds-per-image", "0.1", "--gpus", "8", "--assume", "ap_s=0", "--assume", "eval_images=0")
    free = ("--assume", "intra_gb_s=1e9", "--assume", "intra_us=0", "--assume", "disk_gb_s=1e9")
    assert re.search(r"\| 240 \| 480 \| nothing \|", run(*GIVEN, *args, *free, "--price-per-gpu-hour", "2"))
    assert "cost" not in run(*GIVEN, *args, *free)


def test_keys_of_the_config(run):
    assert "| 8 | 1 | 16 | 0.2" in run(*GIVEN, "--seconds-per-image", "0.1", "--gpus", "8")
    longer, shorter = (
        run(*GIVEN, "--seconds-per-image", "0.1", "--price-per-gpu-hour", "1", "RETHINK.SCHEDULE", length)
        for length in ("6x", "2x")
    )
    assert longer != shorter


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([*GIVEN, "--seconds-per-image", "0.1", "--gpus", "12"], "12 GPUs are no whole number of nodes"),
        ([*GIVEN, "--seconds-per-image", "0.1", "--assume", "speed=1"], "Nothing called 'speed' is assumed"),
        ([*GIVEN, "--seconds-per-image", "0.1", "--figure", "no/such/x.png"], "no/such does not exist"),
        ([*GIVEN, "--preset", "v100-detectron2", "--fixed-seconds", "1"], "leaves no time for images"),
        (
            ["--config-file", R101, "--parameters", "1", "--preset", "v100-detectron2"],
            "nobody published seconds",
        ),
        (["--config-file", "absent.yaml", "--seconds-per-image", "1"], "does not exist"),
        ([*GIVEN], "--preset or --seconds-per-image"),
        ([*GIVEN, "--seconds-per-image", "0"], "must be above 0"),
        ([*GIVEN, "--seconds-per-image", "nan"], "not 0 or more"),
        ([*GIVEN, "--seconds-per-image", "1", "--gpus", "0"], "less than 1"),
    ],
)
def test_refusals(refusal, args, message):
    assert message in refusal(*args)


def test_as_a_process():
    done = run_tool("simulate_scaling.py", "--list")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 17
