import hashlib
import importlib.util
import json
import random
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from pycocotools.coco import COCO
from terminal import lines, run_in_terminal

TOOL = REPOSITORY / "tools" / "make_coco_subset.py"


@pytest.fixture
def tool(monkeypatch):
    """A function that runs the tool's main in this process with the given arguments."""
    spec = importlib.util.spec_from_file_location("make_coco_subset", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr("gc.disable", lambda: None)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["make_coco_subset.py", *map(str, args)])
        module.main()

    return run


@pytest.fixture
def source(tmp_path):
    """40 images of odd ids with two objects each, one of them a crowd now and then."""
    ids = [7 * i + 3 for i in range(40)]
    boxes = [
        {
            "segmentation": [[1, 1, 5, 1, 5, 5]],
            "area": 8.0,
            "iscrowd": int(k % 3 == 0),
            "image_id": ids[k // 2],
        }
        | {"bbox": [1, 1, 4, 4], "category_id": 1 + k % 5, "id": 900 - k, "score": k / 7}
        for k in range(80)
    ]
    document = {
        "info": {"year": 2026, "note": "ä"},
        "licenses": [{"id": 4, "name": "x"}],
        "images": [{"license": 4, "file_name": f"{i}.jpg", "width": 9, "height": 9, "id": i} for i in ids],
        "annotations": boxes,
        "categories": [{"id": c, "name": f"c{c}"} for c in (5, 1, 2, 3, 4, 90)],
    }
    path = tmp_path / "in.json"
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("stratified", [(), ("--stratified",)])
def test_the_subset_is_part_of_the_document_and_nothing_is_rewritten(
    tool, source, tmp_path, capsys, stratified
):
    out = tmp_path / "out.json"
    tool("--json", source, "--num-images", 15, "--output", out, *stratified)
    full, part = json.loads(source.read_text()), json.loads(out.read_text())
    assert list(part) == list(full)
    for key in ("info", "licenses", "categories"):
        assert part[key] == full[key]
    chosen = {image["id"] for image in part["images"]}
    assert len(chosen) == 15
    if not stratified:
        order = sorted((image["id"] for image in full["images"]), key=lambda i: sha256(f"0:{i}"))
        assert chosen == set(order[:15])
    # As text: also the order of keys and the way that numbers are written.
    for key, field in (("images", "id"), ("annotations", "image_id")):
        assert json.dumps(part[key]) == json.dumps([r for r in full[key] if r[field] in chosen])
    assert len(COCO(str(out)).anns) == 30
    printed = capsys.readouterr().out
    assert "15 images, 30 annotations, 5 of 6 categories; missing: c90" in printed
    assert sha256("\n".join(sorted(map(str, chosen)))) in printed


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_shuffled_file_gives_the_same_digest(tool, source, tmp_path, capsys):
    document = json.loads(source.read_text())
    for key in ("images", "annotations"):
        random.Random(0).shuffle(document[key])
    shuffled = tmp_path / "shuffled.json"
    shuffled.write_text(json.dumps(document))
    for name in (source, shuffled):
        for _ in range(2):
            tool(
                "--json", name, "--num-images", 9, "--seed", 3, "--output", tmp_path / "o.json", "--overwrite"
            )
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("digest")]
    assert len(lines) == 4 and len(set(lines)) == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--json", "no.json"), "Cannot read no.json: No such file"),
        (("--num-images", 41), "--num-images 41: the json has 40 images."),
        (("--num-images", 0), "--num-images 0: the json has 40 images."),
        (("--output", "nowhere/out.json"), "The folder nowhere does not exist."),
        (("--json", "list.json"), "list.json is not in COCO's format"),
        (("--json", "list.json", "--output", "list.json"), "list.json is there already"),
    ],
)
def test_mistakes_are_one_line(tool, source, tmp_path, monkeypatch, capsys, args, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(SystemExit):
        tool("--json", source, "--num-images", 5, "--output", "out.json", *args)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and words in line
    assert not (tmp_path / "out.json").exists() and (tmp_path / "list.json").read_text() == "[]"


@pytest.mark.slow
def test_as_a_user_starts_it(source, tmp_path):
    args = ["--json", str(source), "--num-images", "5", "--output", str(tmp_path / "out.json")]
    done = subprocess.run([sys.executable, str(TOOL), *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "digest" in done.stdout and len(list(tmp_path.iterdir())) == 2


def test_its_steps_on_a_terminal(source, tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, str(TOOL), "--json", str(source), "--num-images", "5", "--output", str(out)]
    status, shown = run_in_terminal(command)
    assert status == 0
    steps = [line for line in lines(shown) if line.startswith("out.json ")]
    for step in (f"0/3 -:--:-- reading {source}"[:40], "1/3 -:--:-- choosing", "2/3", "3/3"):
        assert any(step in line for line in steps)
    assert json.loads(out.read_text())["images"]
