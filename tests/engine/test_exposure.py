"""What a run has trained on, against counts by hand; over resumes and two processes."""

import json

import torch
from tiny_loop import build_loop
from two_processes import run_on_two_ranks

from rethink_pretrain.engine import train
from rethink_pretrain.engine.exposure import Exposure, count_records
from rethink_pretrain.engine.numerics import share_outcome
from rethink_pretrain.engine.trainer import Trainer


def record(height, width, objects):
    return {"image": torch.zeros(3, height, width), "instances": range(objects)}


def test_by_hand():
    grown = Exposure(10, 20, 30).grown_by(count_records([record(4, 5, 2), record(6, 7, 0)]))
    assert grown == Exposure(12, 22, 30 + 20 + 42)
    labelled = Exposure().grown_by(count_records([{"image": torch.zeros(3, 8, 8), "label": 0}]))
    assert labelled == Exposure(1, 1, 64)


def share(rank):
    exposure = Exposure()
    for _ in range(2):
        counts = count_records([record(100, 10 * (rank + 1), rank + 1)])
        outcome = share_outcome({"loss": torch.tensor(1.0)}, [], 0.0, counts)
        exposure = exposure.grown_by(outcome.counts)
    return tuple(exposure)


def test_two_processes_add_up(tmp_path):
    """100 x 10 and 100 x 20 px, 1 and 2 objects, twice; both know the sum."""
    assert [tuple(e) for e in run_on_two_ranks(share, tmp_path)] == 2 * [(4, 6, 6000)]


def test_a_run_counts_what_its_mapper_gave(short_cfg, tmp_path, monkeypatch):
    """Against the records themselves; in metrics.json, run.json, and after a resume from the middle."""
    seen = []
    backward = "rethink_pretrain.engine.train_loop.TrainLoop._backward"
    original = Trainer.__init__.__globals__["TrainLoop"]._backward
    monkeypatch.setattr(backward, lambda loop, batch, n: seen.extend(batch) or original(loop, batch, n))
    short_cfg.RETHINK.WATCH.LOG_PERIOD = 1
    train(short_cfg)
    pixels = [r["image"].shape[1] * r["image"].shape[2] for r in seen]
    expected = {"images": 12, "instances": sum(len(r["instances"]) for r in seen), "pixels": sum(pixels)}
    folder = tmp_path / "run"
    assert json.loads((folder / "run.json").read_text())["sessions"][-1]["samples"] == expected
    rows = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert [row["samples/pixels"] for row in rows if "samples/pixels" in row][:3] == [
        *(sum(pixels[: 2 * n]) for n in (1, 2, 3)),
    ]
    trainer = Trainer(short_cfg)
    trainer.checkpointer.load(str(folder / "model_0000002.pth"))
    assert trainer.exposure == Exposure(6, sum(len(r["instances"]) for r in seen[:6]), sum(pixels[:6]))


def test_a_checkpoint_without_counts_leaves_them_unknown(tmp_path):
    loop = build_loop(tmp_path, {})
    state = loop.state_dict()
    del state["exposure"]
    loop.load_state_dict(state)
    assert loop.exposure is None
