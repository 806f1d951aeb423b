"""The tool that looks for problems of a data set, as a user runs it."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_defects import IN_FILES, IN_JSON, make_document, make_everything, write_images
from terminal import run_in_terminal

TOOL = Path(__file__).resolve().parents[1] / "tools" / "validate_dataset.py"


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(TOOL), *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=300, env=env)


@pytest.fixture
def here(capsys, monkeypatch):
    """The tool in this process: exit status and standard output."""
    spec = importlib.util.spec_from_file_location("validate_dataset", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", list(map(str, ["validate_dataset.py", *arguments])))
        with pytest.raises(SystemExit) as end:
            module.main()
        outputs = capsys.readouterr()
        return end.value.code, outputs.out + outputs.err

    return call


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    return tmp_path


def write(document: dict, folder: Path, name: str = "set.json") -> tuple:
    """The two arguments that name it."""
    (folder / name).write_text(json.dumps(document))
    return "--json", folder / name, "--images", folder / "images"


def test_0_where_nothing_is_wrong(datasets):
    toy = datasets / "toy"
    done = run("--json", toy / "val.json", "--images", toy / "val")
    assert done.returncode == 0, done.stderr
    assert "12 images" in done.stdout and "error " not in done.stdout


def test_1_where_something_is(folder):
    document = make_document()
    write_images(document, folder / "images")
    IN_JSON["box-not-finite"](document)
    IN_FILES["image-missing"](document, folder / "images")
    paths = write(document, folder)
    before = (folder / "set.json").read_bytes()
    done = run(*paths, "--report", folder / "report.json", "--fix", folder / "fixed.json")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error          2  box-not-finite: the box holds NaN or infinity" in done.stdout
    assert "error          2  image-missing: the file of an image is not there" in done.stdout
    assert "dropped        2  images: image-missing" in done.stdout
    assert "4 errors, 0 warnings. Not fit for training.\n" in done.stdout
    report = json.loads((folder / "report.json").read_text())
    assert report["errors"] == 4
    assert {kind: problem["count"] for kind, problem in report["problems"].items()} == {
        "box-not-finite": 2,
        "image-missing": 2,
    }
    assert report["fix"]["dropped"]["images"] == {"image-missing": 2}
    assert (folder / "set.json").read_bytes() == before


def test_2_where_a_path_is_no_use_and_one_line_says_so(folder, here):
    paths = write(make_document(), folder)
    (folder / "text.json").write_text("no json")
    (folder / "deep.json").write_text("[" * 100_000)
    (folder / "list.json").write_text("[]")
    (folder / "no_annotations.json").write_text('{"images": [], "categories": []}')
    done = run("--json", folder / "absent.json", "--images", folder / "images")
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: Cannot read")
    for name in ("text", "deep", "list", "no_annotations"):
        code, text = here("--json", folder / f"{name}.json", "--images", folder / "images")
        assert code == 2 and text.startswith(f"error: {folder}/{name}.json is n") and text.count("\n") == 1
    for arguments, words in (
        (("--json", folder / "set.json", "--images", folder / "no folder"), "does not exist"),
        ((*paths, "--fix", folder / "set.json"), "is the json itself"),
        ((*paths, "--fix", folder / "images" / ".." / "set.json"), "is the json itself"),
        ((*paths, "--fix", folder / "a.json", "--report", folder / "a.json"), "named twice"),
        ((*paths, "--fix", folder / "no folder" / "a.json"), "cannot be written"),
        ((*paths, "--report", folder), "cannot be written"),
    ):
        code, text = here(*arguments)
        assert code == 2 and words in text and text.count("\n") == 1
    assert json.loads((folder / "set.json").read_text()) == make_document()


def test_no_images_looks_at_the_json_alone(folder, here):
    paths = write(make_document(), folder)
    assert here(*paths, "--no-images")[0] == 0
    code, text = here(*paths)
    assert code == 1 and "image-missing" in text
    command = f"validate_dataset.py --json {folder}/set.json --images {folder}/images --fix OUT"
    assert text.rstrip().endswith(command)


def test_warnings_count_when_one_is_strict(folder, here):
    document = make_document()
    IN_JSON["area-missing"](document)
    paths = write(document, folder)
    code, text = here(*paths, "--no-images")
    assert code == 0 and "0 errors, 2 warnings. Fit for training" in text
    assert here(*paths, "--no-images", "--strict")[0] == 1


def test_repaired_twice_is_repaired_once(folder, here):
    paths = write(make_everything(folder / "images"), folder)
    code, text = here(*paths, "--fix", folder / "once.json")
    assert code == 1 and "mended" in text and "dropped" in text
    once = ("--json", folder / "once.json", "--images", folder / "images")
    code, text = here(*once, "--fix", folder / "twice.json")
    assert code == 0 and text.endswith("There was nothing to repair.\n")
    assert (folder / "once.json").read_bytes() == (folder / "twice.json").read_bytes()


def test_what_cannot_be_repaired_is_reported_all_the_same(folder, here):
    paths = write(make_document(), folder)  # without any image
    code, text = here(*paths, "--fix", folder / "fixed.json", "--report", folder / "report.json")
    assert code == 1 and "image-missing" in text and "nothing would be left of the images" in text
    assert not (folder / "fixed.json").exists()
    assert json.loads((folder / "report.json").read_text())["problems"]["image-missing"]["count"] == 5


def test_a_terminal_shows_bars(folder):
    document = make_document()
    write_images(document, folder / "images")
    code, shown = run_in_terminal(command(*write(document, folder)))
    assert code == 0 and "Annotations" in shown and "Images" in shown and "No problems found." in shown


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_ctrl_c_ends_it_in_one_line(folder):
    os.mkfifo(folder / "never.json")  # reading it waits until somebody writes
    arguments = command("--json", folder / "never.json", "--images", folder / "images")
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with open(folder / "never.json", "w"):  # waits for the reader
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == "" and err.splitlines()[-1] == "Stopped." and "Traceback" not in err
