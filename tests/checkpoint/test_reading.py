"""Weight files of every layout, against the host's reader; and broken and hostile ones."""

import contextlib
import io
import os
import pickle
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from rethink_pretrain.checkpoint.reading import read_weights
from rethink_pretrain.engine import Trainer
from rethink_pretrain.errors import UserError

WEIGHT = torch.arange(6.0).reshape(2, 3)
BIAS = torch.ones(2)


@pytest.fixture
def write(tmp_path):
    """(name, content) -> the path: bytes as they are, for .pkl pickled, else saved by torch."""

    def write(name, content, **options) -> str:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif path.suffix == ".pkl":
            path.write_bytes(pickle.dumps(content, **options))
        else:
            torch.save(content, path, **options)
        return str(path)

    return write


def refusal(path: str, trust_pickle: bool = False) -> str:
    with warnings.catch_warnings(), pytest.raises(UserError) as info:
        warnings.simplefilter("error")
        read_weights(path, trust_pickle)
    message = str(info.value)
    assert path in message and "\n" not in message and len(message) < 500
    return message


def same(read, wanted) -> bool:
    """Whether two nests of dicts hold the same keys and values, tensors and arrays alike."""
    if isinstance(wanted, dict):
        return read.keys() == wanted.keys() and all(same(read[key], wanted[key]) for key in wanted)
    if isinstance(wanted, (torch.Tensor, np.ndarray)):
        return np.array_equal(np.asarray(read), np.asarray(wanted))
    return read == wanted


def host_read(path: str) -> dict:
    """What the host's reader makes of the file."""
    host = DetectionCheckpointer(nn.Linear(1, 1))
    host._parsed_url_during_load = None
    if hasattr(host, "_torch_load"):  # Detectron2's main, which looks into the URL while it loads
        from urllib.parse import urlparse

        host._parsed_url_during_load = urlparse(path)
    return host._load_file(path)


ARRAYS = {"fc_w": WEIGHT.numpy(), "fc_b": BIAS.numpy()}
LAYOUTS = {
    "state_dict.pth": {"weight": WEIGHT, "bias": BIAS},
    "model.pth": {"model": {"weight": WEIGHT}, "iteration": 5},
    "no_suffix": {"weight": WEIGHT},
    "zoo.pkl": {"model": ARRAYS, "__author__": "somebody"},
    "suffixes.pkl": {"model": ARRAYS, "__author__": "somebody", "matching_heuristics": True},
    "classifier.pkl": {**ARRAYS, "fc_w_momentum": ARRAYS["fc_w"]},
    "detector.pkl": {"blobs": {**ARRAYS, "fc_b_momentum": ARRAYS["fc_b"]}, "cfg": "A: 1"},
    "model.pyth": {"model_state": {"a.weight": WEIGHT, "a.num_batches_tracked": BIAS}, "epoch": 3},
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("trust_pickle", [False, True])
def test_as_the_host_reads_it(write, name, trust_pickle):
    path = write(name, LAYOUTS[name])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_weights(path, trust_pickle)
    assert same(read, host_read(path))


def test_under_state_dict(write):
    path = write("lightning.pth", {"state_dict": {"weight": WEIGHT}, "epoch": 3, "optimizer": {"state": {}}})
    assert same(read_weights(path), {"model": {"weight": WEIGHT}})


def test_safetensors(write, tmp_path):
    path = str(tmp_path / "a.safetensors")
    safetensors.torch.save_file({"weight": WEIGHT}, path, {"config": "SEED: 1"})
    assert same(read_weights(path), {"model": {"weight": WEIGHT}})


@pytest.mark.parametrize("is_zip", [True, False])
def test_what_a_training_of_the_host_leaves(write, short_cfg, is_zip):
    """Optimizer, schedule, hooks, the scaler of mixed precision, and numbers of NumPy."""
    trainer = Trainer(short_cfg)
    optimizer, scaler = trainer.optimizer, torch.amp.GradScaler("cpu", enabled=True)
    for parameter in trainer.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = {
        "model": trainer.model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": trainer.scheduler.state_dict(),
        "trainer": {"iteration": 7, "hooks": {"Best": {"best": np.float64(31.5)}}, "grad_scaler": None},
        "grad_scaler": scaler.state_dict(),
        "iteration": 7,
        "rng": {"torch": torch.get_rng_state(), "numpy": np.random.default_rng(0).bit_generator.state},
        "legacy": np.random.RandomState(0).get_state(),
    }
    read = read_weights(write("model_0000007.pth", state, _use_new_zipfile_serialization=is_zip))
    assert read.keys() == state.keys()
    assert same(read["model"], state["model"])
    assert read["trainer"]["hooks"]["Best"]["best"] == 31.5
    assert read["rng"]["numpy"] == state["rng"]["numpy"]
    np.testing.assert_array_equal(read["legacy"][1], state["legacy"][1])
    optimizer.load_state_dict(read["optimizer"])
    trainer.scheduler.load_state_dict(read["scheduler"])
    scaler.load_state_dict(read["grad_scaler"])


OLD_FORMAT = {"_use_new_zipfile_serialization": False}  # of torch.save, before 1.6


class Stranger:
    """A class that no reader knows."""

    value = 1


class TestTrust:
    @pytest.mark.parametrize(
        ("name", "content", "options"),
        [
            ("zoo.pkl", {"model": ARRAYS, "__author__": "x", "more": Stranger()}, {}),
            ("new.pth", {"model": {"a": WEIGHT}, "more": Stranger()}, {}),
            (
                "old.pth",
                {"model": {"a": WEIGHT}, "more": Stranger()},
                {"_use_new_zipfile_serialization": False},
            ),
            ("model.pyth", {"model_state": {"a": WEIGHT}, "more": Stranger()}, {}),
        ],
    )
    def test_more_than_arrays_needs_it(self, write, name, content, options):
        path = write(name, content, **options)
        message = refusal(path)
        assert "holds more than arrays (test_reading.Stranger)" in message and "--trust-pickle" in message
        assert "model" in read_weights(path, trust_pickle=True)

    @pytest.mark.parametrize("name", ["a.pkl", "a.pth", "a.pyth"])
    @pytest.mark.parametrize("content", [Stranger(), [1], {"epoch": 3}, {1: ARRAYS["fc_w"]}])
    def test_a_layout_that_nobody_knows_is_refused_all_the_same(self, write, name, content):
        refusal(write(name, content), trust_pickle=True)


@pytest.mark.parametrize("version", ["2.4", "2.5"])
def test_torch_that_knows_no_stand_ins(write, monkeypatch, version):
    """Plain checkpoints are read; numbers of NumPy are refused by name."""

    @contextlib.contextmanager
    def safe_globals(names):
        yield names[0].__module__  # as its reader asks of a pair

    if version == "2.4":
        monkeypatch.delattr(torch.serialization, "safe_globals")
    else:
        monkeypatch.setattr(torch.serialization, "safe_globals", safe_globals)
    assert same(read_weights(write("a.pth", {"a": WEIGHT})), {"model": {"a": WEIGHT}})
    assert "scalar)" in refusal(write("b.pth", {"model": {"a": WEIGHT}, "best": np.float64(1)}))


class TestNoWeights:
    @pytest.mark.parametrize("content", [WEIGHT, [WEIGHT], {"model": WEIGHT}, {1: WEIGHT}, {"model": 0}, {}])
    def test_no_names(self, write, content):
        message = refusal(write("a.pth", content))
        assert "holds no weights by name. Save a state_dict, or {'model': state_dict}." in message

    @pytest.mark.parametrize(
        "value", [1, "text", None, [1.0], {"a": WEIGHT}, WEIGHT.to_sparse(), WEIGHT.to("meta")]
    )
    def test_no_arrays(self, write, value):
        message = refusal(write("a.pth", {"good": WEIGHT, "bad": value}))
        assert f"'bad' is {type(value).__name__}, not an array of numbers" in message

    def test_values_of_pkl(self, write):
        assert "'a' is str, not an array" in refusal(write("a.pkl", {"a": "text"}))
        assert "str instead of weights by name" in refusal(write("b.pkl", {"blobs": "text"}))
        assert "list instead of weights by name" in refusal(write("c.pkl", [1]))
        assert "files of pycls hold model_state" in refusal(write("d.pyth", {"weight": WEIGHT}))

    def test_a_name_with_an_escape_sequence(self, write):
        assert "\x1b" not in refusal(write("a.pth", {"\x1b[31m" + "x" * 10_000: 1}))


class TestDamaged:
    CONTENTS = {
        "nothing": b"",
        "text": b"no checkpoint",
        "zeros": bytes(5000),
        "a start": b"\x80\x04",
        "a page": b"<!DOCTYPE html><html>Not found</html>" * 20,
        "a zip's start": b"PK\x03\x04" + bytes(100),
        "a zip of nothing": b"PK\x05\x06" + bytes(18),
        "random": np.random.default_rng(0).bytes(5000),
    }

    @pytest.mark.parametrize("name", ["a.pth", "a.pkl", "a.pyth", "a.safetensors", "a"])
    @pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
    def test_one_line(self, write, name, content):
        for trust_pickle in (False, True):
            message = refusal(write(name, content), trust_pickle)
            assert "is no checkpoint, or a damaged one: " in message and "weights_only" not in message

    @pytest.mark.parametrize("name", ["a.pth", "a.pkl", "a.safetensors"])
    def test_cut_off_and_overwritten(self, write, name):
        """Any prefix, and bytes changed anywhere, are read or refused by one line."""
        random = np.random.default_rng(1)
        if name == "a.safetensors":
            content = safetensors.torch.save({"weight": WEIGHT})
        elif name == "a.pkl":
            content = pickle.dumps(ARRAYS, 2)
        else:
            buffer = io.BytesIO()
            torch.save({"model": {"weight": WEIGHT}}, buffer)
            content = buffer.getvalue()
        for end in random.integers(0, len(content), 60):
            refusal(write(name, content[:end]))
        num_read = 0
        for place in random.integers(0, len(content), 150):
            changed = bytearray(content)
            changed[place] = random.integers(256)
            path = write(name, bytes(changed))
            try:
                num_read += "model" in read_weights(path)
            except UserError as error:
                assert "\n" not in str(error)
        assert num_read < 150

    def test_no_file(self, tmp_path):
        assert "is no file" in refusal(str(tmp_path))
        assert "is no file" in refusal(str(tmp_path / "none.pth"))
        os.mkfifo(tmp_path / "pipe.pth")  # would wait for a writer
        assert "is no file" in refusal(str(tmp_path / "pipe.pth"))

    def test_tar(self, write):
        """Versions of torch before 2.6 ran what is in the pickles of one, weights_only or not."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("pickle"))
        assert "neither a zip nor a pickle" in refusal(write("a.pth", buffer.getvalue()))

    def test_a_bomb_is_seen_before_it_is_unpacked(self, write):
        buffer = io.BytesIO()
        torch.save({"weight": torch.zeros(1000)}, buffer)
        bomb = io.BytesIO()
        with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
            for name in source.namelist():
                is_data = name.endswith("data/0")
                target.writestr(name, bytes(20_000_000) if is_data else source.read(name))
        assert len(bomb.getvalue()) < 100_000
        assert "it would unpack to 20 MB" in refusal(write("a.pth", bomb.getvalue()))

    def test_a_tensor_of_more_than_the_file(self, write):
        """One number, repeated 2**60 times."""
        path = write("a.pth", {"a": torch.zeros(1).expand(2**60)})
        assert "'a' is larger than the file" in refusal(path)

    @pytest.mark.parametrize("length", [2**63, 2**40, 10**8])
    def test_safetensors_with_a_header_of_any_length(self, write, length):
        content = length.to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
        assert "damaged" in refusal(write("a.safetensors", content))

    @pytest.mark.parametrize("offsets", ["[0,400]", "[4,0]", "[-4,0]", "[0,3]", "[0,99999999999999999999]"])
    def test_safetensors_with_offsets_beyond_the_file(self, write, offsets):
        header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":%s}}' % offsets.encode()
        content = len(header).to_bytes(8, "little") + header + bytes(4)
        assert "damaged" in refusal(write("a.safetensors", content))
