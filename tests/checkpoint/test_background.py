import threading
from collections import OrderedDict

import pytest
import torch
from torch import nn

from rethink_pretrain.checkpoint import RethinkCheckpointer
from rethink_pretrain.checkpoint.background import Background, snapshot


def test_a_snapshot_does_not_follow_the_original():
    model = nn.BatchNorm2d(3)
    data = {
        "model": model.state_dict(),
        "list": [torch.ones(2), (1, torch.ones(1))],
        "name": "x",
        "none": None,
    }
    copied = snapshot(data)
    with torch.no_grad():
        model.weight.fill_(5)
    data["list"][0].fill_(5)
    assert torch.equal(copied["model"]["weight"], torch.ones(3))
    assert torch.equal(copied["list"][0], torch.ones(2)) and copied["list"][1][0] == 1
    assert (copied["name"], copied["none"]) == ("x", None)
    assert isinstance(copied["model"], OrderedDict)
    # Without the versions of the modules in it, BatchNorm and FrozenBN take the file for one of old times.
    assert copied["model"]._metadata == data["model"]._metadata


def test_jobs_come_one_after_the_other():
    background, order, gate = Background(), [], threading.Event()
    background.start(lambda: (gate.wait(10), order.append(1)))
    assert order == []
    gate.set()
    background.start(lambda: order.append(2))
    background.wait()
    assert order == [1, 2]


def test_an_error_is_raised_where_somebody_waits_and_once():
    background = Background()
    background.start(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        background.wait()
    background.wait()


def test_the_file_holds_the_state_of_the_moment_of_saving(tmp_path, monkeypatch):
    """Training goes on at once, and changes the weights while they are written."""
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    checkpointer, gate, save = RethinkCheckpointer(model, str(tmp_path)), threading.Event(), torch.save
    monkeypatch.setattr(torch, "save", lambda data, file: (gate.wait(10), save(data, file)))
    checkpointer.save("model_0000001", iteration=1)
    assert not (tmp_path / "model_0000001.pth").exists()
    with torch.no_grad():
        model.weight.add_(1)
    gate.set()
    checkpointer.wait()
    written = torch.load(tmp_path / "model_0000001.pth", weights_only=True)
    assert torch.equal(written["model"]["weight"], before)
