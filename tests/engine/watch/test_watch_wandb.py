"""With a module of the same calls, and offline with the real one where it is installed."""

import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from detectron2.utils.events import EventStorage

from rethink_pretrain.engine.watch import build_watch_writers
from rethink_pretrain.engine.watch.wandb_writer import WandbWriter
from rethink_pretrain.errors import UserError


class Fake:
    """wandb, as far as it is used: what `init` and `log` were called with."""

    class errors:
        class Error(Exception):
            pass

    def __init__(self):
        self.inits, self.logs, self.finished, self.refusal = [], [], 0, None
        self.Settings = dict
        self.Image = lambda pixels: ("image", pixels.shape)

    def init(self, **kwargs):
        if self.refusal:
            raise self.errors.Error(self.refusal)
        self.inits.append(kwargs)
        return SimpleNamespace(log=self._log, finish=self._finish)

    def _log(self, row, step):
        self.logs.append((step, row))

    def _finish(self):
        self.finished += 1


@pytest.fixture
def fake(monkeypatch):
    module = Fake()
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return module


def fill(storage, iteration):
    storage.iter = iteration
    for loss in (3.0, 1.0, 2.0):
        storage.put_scalar("total_loss", loss)
    storage.put_scalar("bbox/AP", 12.5, smoothing_hint=False)


def read_records(content):
    """Of LevelDB's log format behind 7 bytes: checksum, length and kind (whole or part) before each."""
    record, at, block = b"", 7, 32768
    while at < len(content):
        if block - at % block < 7:  # too little is left for a header
            at += block - at % block
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def test_scalars_and_images_by_iteration(fake, tmp_path):
    writer = WandbWriter(str(tmp_path), "offline", {"SEED": 1})
    with EventStorage(0) as storage:
        fill(storage, 4)
        storage.put_scalar("bbox/AP", 12.5, smoothing_hint=False)
        storage.iter = 5
        storage.put_scalar("time", 0.25)
        storage.put_image("predictions/a.jpg", np.zeros((3, 4, 6), np.uint8))
        writer.write()
        assert len(storage._vis_data) == 1  # for TensorBoard
        storage.clear_images()
        writer.write()
    writer.close()
    assert fake.logs == [
        (4, {"total_loss": 2.0, "bbox/AP": 12.5}),
        (5, {"time": 0.25, "predictions/a.jpg": ("image", (4, 6, 3))}),
    ]
    assert fake.finished == 1


def test_a_resumed_run_keeps_its_id(fake, tmp_path):
    for name in ("one", "one", "two"):
        (tmp_path / name).mkdir(exist_ok=True)
        WandbWriter(str(tmp_path / name), "online")
    first, again, other = fake.inits
    assert first["id"] == again["id"] != other["id"] and first["resume"] == "allow"
    assert (first["mode"], first["name"], first["dir"]) == ("online", "one", str(tmp_path / "one"))
    assert first["project"] == "rethink_pretrain"


def test_a_config_turns_it_on(fake, short_cfg):
    assert build_watch_writers(short_cfg) == []
    short_cfg.RETHINK.WATCH.WANDB = "offline"
    (writer,) = build_watch_writers(short_cfg)
    assert isinstance(writer, WandbWriter)
    assert fake.inits[0]["config"]["SOLVER"]["MAX_ITER"] == short_cfg.SOLVER.MAX_ITER


def test_mistakes_are_one_line(fake, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"WANDB is 'on'. Choose from offline, online"):
        WandbWriter(str(tmp_path), "on")
    fake.refusal = "no API key\nconfigured."
    with pytest.raises(UserError, match=r"Weights & Biases: no API key configured\. .*offline needs no"):
        WandbWriter(str(tmp_path), "online")
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(UserError, match="pip install wandb"):
        WandbWriter(str(tmp_path), "offline")


def test_a_real_run_without_network(tmp_path, monkeypatch):
    """The file that `wandb sync` would send holds what was written."""
    wandb = pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_SILENT", "true")
    writer = WandbWriter(str(tmp_path), "offline", {"SEED": 1})
    with EventStorage(0) as storage:
        fill(storage, 4)
        storage.put_image("predictions/a.jpg", np.zeros((3, 4, 6), np.uint8))
        writer.write()
    writer.close()
    wandb.teardown()  # its process writes the rest of the file; in a training, at exit
    run_id = (tmp_path / "wandb" / "run_id").read_text()
    (file,) = tmp_path.glob(f"wandb/offline-run-*/run-{run_id}.wandb")
    logged = {}
    for data in read_records(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        logged |= {(i.key or "/".join(i.nested_key)): i.value_json for i in record.history.item}
    assert (logged["_step"], logged["total_loss"], logged["bbox/AP"]) == ("4", "2", "12.5")
    assert logged["predictions/a.jpg/_type"] == '"image-file"'
    assert len(list(tmp_path.glob("wandb/offline-run-*/files/media/images/**/*.png"))) == 1
