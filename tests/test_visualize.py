"""tools/visualize.py as a user starts it."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY, TOY_CONFIG
from PIL import Image

from rethink_pretrain.config import load_config

TOOL = REPOSITORY / "tools" / "visualize.py"
KINDS = ("classification", "duplicate", "missed")  # of the mistakes in `results`


@pytest.fixture
def visualize(monkeypatch, capsys):
    """The tool in this process, which has imported all that takes seconds: exit status, stdout, stderr."""
    spec = importlib.util.spec_from_file_location("visualize", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["visualize.py", *map(str, args)])
        code = 0
        try:
            module.main()
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


def the_error(result):
    """The one line of a user's mistake."""
    code, out, err = result
    assert code == 1 and out == ""
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def results(datasets, tmp_path):
    """The ground truth, with one object left out, one of a category that its image lacks, one found twice."""
    annotations = json.loads((datasets / "toy" / "val.json").read_text())["annotations"]
    found = [{**a, "score": 0.9} for a in annotations if not a["iscrowd"]]
    there = {a["category_id"] for a in annotations if a["image_id"] == found[1]["image_id"]}
    found[1]["category_id"] = min(set(range(1, 9)) - there)
    found.append({**found[2], "score": 0.8})
    path = tmp_path / "inference" / "coco_instances_results.json"
    path.parent.mkdir()
    path.write_text(json.dumps(found[1:]))
    return path


def test_a_process_without_a_display(datasets, tmp_path):
    env = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MPLBACKEND")}
    command = [sys.executable, TOOL, "data", "--dataset", "toy_val", "--num-images", "2", "--output", "out"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "2 pictures in out\n"), done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["images_01.png", "images_02.png"]


@pytest.mark.parametrize("name", ["toy_val", "toy_val@5"])
def test_a_page_of_a_data_set(visualize, datasets, tmp_path, name):
    page = tmp_path / "data.html"
    assert visualize("data", "--dataset", name, "--output", page) == (0, f"{page}\n", "")
    html = page.read_text()
    number = 12 if name == "toy_val" else 5
    assert f"{number} images" in html and html.count("data:image/jpeg") == number
    assert "striped disc" in html and "<h2>Categories</h2>" in html


def test_a_folder_of_pictures_of_own_data(visualize, tmp_path):
    """Files that only RAW training takes, and an annotation that lacks what can be filled in."""
    np.save(tmp_path / "five.npy", np.random.default_rng(0).integers(0, 4000, (40, 60, 5)).astype(np.uint16))
    images = [{"id": 1, "file_name": "five.npy", "width": 60, "height": 40}]
    annotations = [{"image_id": 1, "category_id": 3, "bbox": [5, 5, 20, 20]}]
    document = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "<b>"}]}
    (tmp_path / "own.json").write_text(json.dumps(document))
    files = ("--json", tmp_path / "own.json", "--images", tmp_path)
    result = visualize("data", *files, "--output", tmp_path / "out")
    assert result == (0, f"1 picture in {tmp_path / 'out'}\n", "")
    assert Image.open(tmp_path / "out" / "images_01.png").size == (340, 227)


def test_mistakes_of_results(visualize, datasets, tmp_path, results):
    toy, page = datasets / "toy", tmp_path / "page.html"
    files = ("--json", toy / "val.json", "--images", toy / "val", "--results", results)
    assert visualize("predictions", *files, "--output", page) == (0, f"{page}\n", "")
    html = page.read_text()
    for heading in (
        "By kind and category",
        "Worst images",
        "Best images",
        *(f"Kind: {kind}" for kind in KINDS),
    ):
        assert f"<h2>{heading}</h2>" in html
    assert "Kind: background" not in html and "Kind: both" not in html
    assert page.stat().st_size < 3e6

    code, *_ = visualize("predictions", *files, "--min-score", "0.95", "--output", tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert code == 0 and {"by_kind_and_category_01.png", "worst_images_01.png", "kind_missed_01.png"} <= names
    assert not any(name.startswith(("kind_dup", "kind_class")) for name in names)


def test_mistakes_of_a_run_that_was_moved(visualize, datasets, tmp_path, results):
    cfg = load_config(TOY_CONFIG, opts=["OUTPUT_DIR", "somewhere/else", "DATASETS.TEST", "('toy_val@8',)"])
    (tmp_path / "config.yaml").write_text(cfg.dump())
    args = ("predictions", "--run", tmp_path, "--output", tmp_path / "page.html", "--num-images", "2")
    # The results are of the whole set, and the config names a part of it.
    assert "images of the results, such as" in the_error(visualize(*args))

    (tmp_path / "config.yaml").write_text(cfg.dump().replace("toy_val@8", "toy_val"))
    code, _, err = visualize(*args)
    assert code == 0, err
    assert "toy_val: 12 images" in (tmp_path / "page.html").read_text()


def test_mistakes_of_users_are_one_line(visualize, datasets, tmp_path):
    out = ("--output", tmp_path / "page.html")
    run = ("predictions", "--run", tmp_path)
    assert "no folder" in the_error(visualize("predictions", "--run", tmp_path / "none", *out))
    assert "holds no run: config.yaml is missing" in the_error(visualize(*run, *out))
    (tmp_path / "config.yaml").write_text(load_config(TOY_CONFIG).dump())
    line = the_error(visualize(*run, *out))
    assert "the run was not evaluated" in line and "--eval-only --resume" in line
    assert "Unknown data set 'toy_vla'" in the_error(visualize("data", "--dataset", "toy_vla", *out))
    assert "only labels of pixels" in the_error(visualize("data", "--dataset", "toy_val_stuff", *out))

    (tmp_path / "broken.jpg").write_text("no image")
    images = [{"id": 1, "file_name": "broken.jpg", "width": 4, "height": 4}]
    document = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "own.json").write_text(json.dumps(document))
    own = ("data", "--json", tmp_path / "own.json", "--images", tmp_path)
    assert f"Cannot read {tmp_path / 'broken.jpg'}" in the_error(visualize(*own, *out))

    for args in (own[:3], (*own, "--dataset", "toy_val"), (*own, "--num-images", "0")):
        code, _, err = visualize(*args, *out)
        assert code == 2 and ("give either --dataset, or --json and --images" in err or "1 or more" in err)
