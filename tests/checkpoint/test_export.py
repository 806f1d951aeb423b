"""Weights as safetensors: the same after writing and reading, whatever they shared before."""

import json

import numpy as np
import pytest
import torch

from rethink_pretrain.checkpoint.export import check_output, export_weights, read_about
from rethink_pretrain.checkpoint.reading import read_weights
from rethink_pretrain.errors import UserError


def header_of(path) -> dict:
    """By the format's description: 8 bytes of length, then JSON."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])


def test_values_come_back(tmp_path):
    shared = torch.arange(12.0).reshape(3, 4)
    weights = {
        "a": shared,
        "tied": shared,
        "transposed": shared.t(),
        "part": shared[1:, ::2],
        "parameter": torch.nn.Parameter(torch.ones(2, 2)),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 5),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "mask": torch.tensor([True, False]),
    }
    path = tmp_path / "deeper" / "w.safetensors"
    export_weights(path, weights, {"iteration": "89999", "config": "SEED: 1\nÄ: ü\n"})
    read = read_weights(str(path))
    assert read.keys() == {"model"} and read["model"].keys() == weights.keys()
    for name, value in weights.items():
        assert read["model"][name].dtype == value.dtype
        assert torch.equal(read["model"][name], value.detach()), name
    assert read_about(path) == {"format": "pt", "iteration": "89999", "config": "SEED: 1\nÄ: ü\n"}
    header = header_of(path)
    assert header["tied"]["shape"] == [3, 4] and header["transposed"]["shape"] == [4, 3]
    assert not list(path.parent.glob("*.tmp"))


def test_another_reader_finds_the_bytes(tmp_path):
    path = tmp_path / "w.safetensors"
    export_weights(path, {"a": torch.arange(6.0).reshape(2, 3).t()}, {})
    start, end = header_of(path)["a"]["data_offsets"]
    data = path.read_bytes()[-(end - start) :]
    np.testing.assert_array_equal(np.frombuffer(data, "<f4").reshape(3, 2), [[0, 3], [1, 4], [2, 5]])


def test_what_is_refused(tmp_path):
    (tmp_path / "there.safetensors").touch()
    with pytest.raises(UserError, match=r"there already\. Replace it with --force"):
        check_output(tmp_path / "there.safetensors", False)
    check_output(tmp_path / "there.safetensors", True)
    with pytest.raises(UserError, match=r"has to end in \.safetensors"):
        check_output(tmp_path / "weights.pth", True)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Cannot write .*(Not a directory|File exists)"):
        export_weights(tmp_path / "file" / "w.safetensors", {}, {})
