"""Files of a stranger who wants more than to be read. A marker file tells whether anything ran.

For each payload and place a test shows first that the usual way of loading does run it.
"""

import contextlib
import functools
import importlib.util
import io
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import REPOSITORY
from detectron2.data import DatasetCatalog, MetadataCatalog
from made_runs import make_run
from PIL import EpsImagePlugin, Image
from torch import nn

from rethink_pretrain.analysis.runs import read_run
from rethink_pretrain.analysis.sweeps import read_sweep
from rethink_pretrain.checkpoint import RethinkCheckpointer
from rethink_pretrain.checkpoint.reading import read_weights
from rethink_pretrain.config import load_config
from rethink_pretrain.data import read_image, register_coco
from rethink_pretrain.errors import UserError

WEIGHT = torch.ones(1, 1)
HTML = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.fixture
def marker(tmp_path):
    """Exists when something has run."""
    return tmp_path / "marker"


def refusal(function, *args, **kwargs) -> str:
    """The one line of the one error that tools show."""
    with pytest.raises(UserError) as info:
        function(*args, **kwargs)
    assert "\n" not in str(info.value)
    return str(info.value)


class Calls:
    """Pickles as a call of `function`, which loading it does."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call

    def __call__(self):
        """So that a pickle may call what it has got by a call."""


def python(marker: Path) -> str:
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


def saved(content, **options) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def object_array(value) -> np.ndarray:
    array = np.empty(1, dtype=object)
    array[0] = value
    return array


def write_npy(marker: Path) -> str:
    path = marker.with_name("payload.npy")
    np.save(path, object_array(Calls(eval, python(marker))), allow_pickle=True)
    return str(path)


def write_pth(marker: Path) -> str:
    path = marker.with_name("payload.pth")
    path.write_bytes(saved(Calls(eval, python(marker))))
    return str(path)


runstring = importlib.import_module("numpy.testing._private.utils").runstring

# Objects that a pickle can hold, with what they do to the marker when it is loaded.
PAYLOADS = {
    "os.system": lambda marker: Calls(os.system, f"touch {marker}"),
    "subprocess": lambda marker: Calls(subprocess.check_call, ["touch", str(marker)]),
    "eval": lambda marker: Calls(eval, python(marker)),
    "exec": lambda marker: Calls(exec, python(marker)),
    "open": lambda marker: Calls(open, str(marker), "w"),
    "mkdir": lambda marker: Calls(os.mkdir, str(marker)),
    "getattr": lambda marker: Calls(Calls(getattr, Calls(Path, str(marker)), "touch")),
    "map": lambda marker: Calls(list, Calls(map, eval, [python(marker)])),
    "a pickle inside": lambda marker: Calls(pickle.loads, pickle.dumps(Calls(eval, python(marker)))),
    "an object array": lambda marker: object_array(Calls(eval, python(marker))),
    "numpy.load": lambda marker: Calls(np.load, write_npy(marker), None, True),
    "numpy.testing": lambda marker: Calls(runstring, python(marker), {}),
    "torch.load": lambda marker: Calls(functools.partial(torch.load, write_pth(marker), weights_only=False)),
    "a storage": lambda marker: Calls(torch.storage._load_from_bytes, saved(Calls(eval, python(marker)))),
    "a tensor": lambda marker: Calls(torch._utils._rebuild_tensor_v2, Calls(eval, python(marker)), 0, (), ()),
}

# Programs for the pickle machine that no pickler would write; TOUCH is a command, EVAL an expression.
PROGRAMS = {
    "inst": b"(S'TOUCH'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'TOUCH'\no.",
    "python 2": b'c__builtin__\neval\n(S"EVAL"\ntR.',
    "posix": b"cposix\nsystem\n(S'TOUCH'\ntR.",
    "dots": b"\x80\x04\x8c\x07pathlib\x8c\x09os.system\x93(S'TOUCH'\ntR.",
    "beyond what is read": b'N0c__builtin__\neval\n(S"EVAL"\ntR0}.',
}

# Where a payload can hide: name of the file -> its content.
PLACES = {
    "caffe2.pkl": lambda payload: pickle.dumps({"conv1_w": payload}, 2),
    "blobs.pkl": lambda payload: pickle.dumps({"blobs": {"conv1_w_momentum": payload}}, 4),
    "zoo.pkl": lambda payload: pickle.dumps({"model": {"a": WEIGHT.numpy()}, "__author__": payload}),
    "pickle.pth": lambda payload: pickle.dumps(payload, 2),
    "weights.pth": lambda payload: saved({"model": {"a": payload}}),
    "optimizer.pth": lambda payload: saved({"model": {"a": WEIGHT}, "optimizer": {"state": {0: payload}}}),
    "hooks.pth": lambda payload: saved({"model": {"a": WEIGHT}, "trainer": {"hooks": {"LR": payload}}}),
    "old.pth": lambda payload: saved({"a": WEIGHT, "b": payload}, _use_new_zipfile_serialization=False),
    "pycls.pyth": lambda payload: saved({"model_state": {"a": WEIGHT}, "epoch": payload}),
    "no_suffix": lambda payload: saved({"a": WEIGHT, "b": payload}),
}


def load_as_usual(path: Path) -> None:
    """With the errors of a payload that has run already."""
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.suffix == ".pkl":
            pickle.loads(path.read_bytes(), encoding="latin1")
        else:
            torch.load(path, weights_only=False)


class TestWeights:
    @pytest.mark.parametrize("name", PLACES)
    @pytest.mark.parametrize("payload", PAYLOADS)
    def test_payloads(self, tmp_path, marker, name, payload):
        path = tmp_path / name
        path.write_bytes(PLACES[name](PAYLOADS[payload](marker)))
        refusal(read_weights, str(path))
        assert not marker.exists()
        load_as_usual(path)
        assert marker.exists()

    @pytest.mark.parametrize("name", ["a.pkl", "a.pth"])
    @pytest.mark.parametrize("program", PROGRAMS)
    def test_programs(self, tmp_path, marker, name, program):
        path = tmp_path / name
        content = PROGRAMS[program].replace(b"TOUCH", f"touch {marker}".encode())
        path.write_bytes(content.replace(b"EVAL", python(marker).encode()))
        refusal(read_weights, str(path))
        assert not marker.exists()
        load_as_usual(path)
        assert marker.exists()

    @pytest.mark.parametrize("name", PLACES)
    def test_by_the_checkpointer(self, tmp_path, marker, name):
        """As MODEL.WEIGHTS."""
        path = tmp_path / name
        path.write_bytes(PLACES[name](PAYLOADS["os.system"](marker)))
        refusal(RethinkCheckpointer(nn.Linear(1, 1)).load, str(path))
        assert not marker.exists()

    def test_a_folder_of_a_run(self, tmp_path, marker):
        """A checkpoint that a resume would load."""
        run = tmp_path / "run"
        run.mkdir()
        (run / "model_0000009.pth").write_bytes(PLACES["hooks.pth"](PAYLOADS["eval"](marker)))
        (run / "last_checkpoint").write_text("model_0000009.pth")
        refusal(RethinkCheckpointer(nn.Linear(1, 1), str(run)).resume_or_load, "", resume=True)
        assert not marker.exists()

    @pytest.mark.parametrize(
        "name", ["../bad.pth", "{}/bad.pth", "sub/../../bad.pth", "..", "a\0b", "", "https://x/y"]
    )
    def test_a_last_checkpoint_elsewhere(self, tmp_path, marker, name):
        run = tmp_path / "run"
        run.mkdir()
        (tmp_path / "bad.pth").write_bytes(saved({"weight": WEIGHT, "bias": torch.zeros(1)}))
        (run / "last_checkpoint").write_text(name.format(tmp_path))
        checkpointer = RethinkCheckpointer(nn.Linear(1, 1), str(run))
        assert checkpointer.get_checkpoint_file() == ""
        assert checkpointer.resume_or_load("", resume=True) == {}
        assert checkpointer.loaded == {}


TAGS = {
    "os.system": "!!python/object/apply:os.system ['touch {}']",
    "subprocess": "!!python/object/apply:subprocess.check_call [[touch, '{}']]",
    "eval": "!!python/object/apply:eval [\"__import__('pathlib').Path('{}').touch()\"]",
    "new": "!!python/object/new:tuple [!!python/object/new:map [!!python/name:os.mkdir , ['{}']]]",
    "listitems": "!!python/object/new:type {{args: [x, !!python/tuple [], {{extend: !!python/name:exec }}], "
    "listitems: \"__import__('pathlib').Path('{}').touch()\"}}",
}


class TestYaml:
    """tests/config/test_load.py has more of them: bases, overlays, bombs."""

    @pytest.fixture(params=TAGS)
    def text(self, request, marker):
        text = "SEED: " + TAGS[request.param].format(marker)
        with contextlib.suppress(yaml.YAMLError):
            yaml.unsafe_load(text)
        assert marker.exists(), "the usual way does not run it"
        marker.unlink() if marker.is_file() else marker.rmdir()
        yield text
        assert not marker.exists()

    def test_a_config(self, text, tmp_path):
        (tmp_path / "a.yaml").write_text(text)
        assert "refused" in refusal(load_config, tmp_path / "a.yaml")

    def test_a_base(self, text, tmp_path):
        (tmp_path / "a.yaml").write_text(text)
        (tmp_path / "b.yaml").write_text("_BASE_: [a.yaml]")
        assert "refused" in refusal(load_config, tmp_path / "b.yaml")

    def test_an_overlay(self, text, tmp_path):
        (tmp_path / "a.yaml").write_text(text)
        good = REPOSITORY / "configs" / "scratch_6x.yaml"
        assert "refused" in refusal(load_config, good, [tmp_path / "a.yaml"])

    def test_a_value_of_the_command_line(self, text):
        good = REPOSITORY / "configs" / "scratch_6x.yaml"
        refusal(load_config, good, (), ["SEED", text.removeprefix("SEED: ")])

    def test_the_config_of_a_run(self, text, tmp_path):
        run = make_run(tmp_path / "run", config=False)
        (run / "config.yaml").write_text(text)
        refusal(read_run, run)

    def test_a_sweep(self, text, tmp_path):
        (tmp_path / "sweep.yaml").write_text(text.replace("SEED", "runs"))
        refusal(read_sweep, tmp_path / "sweep.yaml")


@pytest.mark.parametrize(
    "changes",
    [
        {"RETHINK.TRUST_PICKLE": True},
        {"RETHINK.TRUST_PICKLE": "True"},
        {"--trust-pickle": "--resume"},
        {"SEED": 1, "--config-file": "other.yaml"},
        {"OUTPUT_DIR": "/elsewhere"},
    ],
)
def test_a_sweep_sets_keys_and_no_more(tmp_path, changes):
    """Its KEY VALUE pairs go to a command line, which may do more than a file."""
    (tmp_path / "a.yaml").write_text("{}")
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"runs": [{"config": "a.yaml", "set": changes}]}))
    refusal(read_sweep, tmp_path / "sweep.yaml")


class TestImages:
    def test_an_array_of_objects(self, marker):
        path = write_npy(marker)
        refusal(read_image, path, "RAW")
        assert not marker.exists()
        np.load(path, allow_pickle=True)
        assert marker.exists()

    @pytest.mark.parametrize("name", ["a.eps", "a.jpg", "a.tif"])
    @pytest.mark.parametrize("image_format", ["RGB", "BGR", "RAW"])
    def test_postscript(self, tmp_path, marker, monkeypatch, name, image_format):
        """PIL gives such a file to Ghostscript, here one of the test's."""
        program = tmp_path / "bin" / "gs"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\ntouch {marker}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
        path = tmp_path / name
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")
        refusal(read_image, str(path), image_format)
        assert not marker.exists()
        with contextlib.suppress(OSError), Image.open(path) as image:
            image.load()
        assert marker.exists()


@pytest.fixture
def stranger(tmp_path):
    """A data set of one image, by the name and with the category that the test wants; its files."""
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", (32, 32)).save(images / "a.jpg")
    Image.new("RGB", (32, 32)).save(tmp_path / "secret.jpg")
    (images / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (images / "folder").symlink_to(tmp_path)

    def write(file_name="a.jpg", category="cat") -> tuple[Path, Path]:
        box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
        document = {
            "images": [{"id": 1, "file_name": file_name, "width": 32, "height": 32}],
            "categories": [{"id": 1, "name": category}],
            "annotations": [box],
        }
        (tmp_path / "a.json").write_text(json.dumps(document))
        return tmp_path / "a.json", images

    return write


class TestFileNames:
    @pytest.fixture
    def load(self):
        name = "malicious_names"

        def load(json_file, images):
            register_coco(name, json_file, images)
            return DatasetCatalog.get(name)

        yield load
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)

    def test_a_name_inside(self, load, stranger):
        (record,) = load(*stranger())
        assert Path(record["file_name"]).name == "a.jpg"

    @pytest.mark.parametrize(
        "name",
        [
            "../secret.jpg",
            "folder/../../secret.jpg",
            "{}/secret.jpg",
            "/etc/passwd",
            "link.jpg",
            "folder/secret.jpg",
            "https://example.org/a.jpg",
            "a.jpg\0.png",
            "..",
            "",
        ],
    )
    def test_a_name_that_leads_out(self, load, stranger, tmp_path, name):
        refusal(load, *stranger(name.format(tmp_path)))


class TestPages:
    """What a page shows of a stranger's files is text."""

    @pytest.fixture
    def run_tool(self, monkeypatch, capsys):
        def run_tool(name, *args):
            spec = importlib.util.spec_from_file_location(name, REPOSITORY / "tools" / f"{name}.py")
            tool = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(tool)
            monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, args)])
            tool.main()
            return capsys.readouterr().out

        return run_tool

    def check(self, page: Path) -> None:
        html = page.read_text()
        assert "&lt;script&gt;alert(1)" in html
        assert "<script>alert" not in html and "<img src=x" not in html

    def test_a_category(self, run_tool, stranger, tmp_path):
        annotations, images = stranger(category=HTML)
        args = ("--json", annotations, "--images", images, "--output", tmp_path / "page.html")
        run_tool("visualize", "data", *args)
        self.check(tmp_path / "page.html")

    def test_a_run(self, run_tool, tmp_path):
        runs = [
            make_run(tmp_path / "plain"),
            make_run(tmp_path / HTML.replace("/", ""), weights=HTML, INPUT__FORMAT=HTML),
        ]
        run_tool("compare_runs", *runs, "--force", "--output", tmp_path / "page.html")
        self.check(tmp_path / "page.html")
