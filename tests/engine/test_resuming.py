"""What a resume finds, refuses, and makes good for; `straight` is the run that nothing has disturbed."""

import errno
import json
import logging
import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import get_event_storage

from rethink_pretrain.checkpoint import store
from rethink_pretrain.engine import Trainer, train, train_loop
from rethink_pretrain.errors import UserError

COMPARED = ("iteration", "lr", "bbox/", "segm/")  # losses are medians of 20 rows, which a resume starts anew


@pytest.fixture
def cfg(short_cfg):
    """Six iterations; checkpoints and evaluations behind the third and the last."""
    short_cfg.TEST.EVAL_PERIOD = 3
    short_cfg.RETHINK.WATCH.BEST_METRIC = "bbox/AP"
    short_cfg.RETHINK.WATCH.LOG_PERIOD = 1
    short_cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.0
    return short_cfg


@pytest.fixture
def straight(cfg, tmp_path):
    """Its folder; OUTPUT_DIR of `cfg` is a copy of it, to be disturbed."""
    folder = tmp_path / "straight"
    cfg.OUTPUT_DIR = str(folder)
    train(cfg)
    cfg.OUTPUT_DIR = str(tmp_path / "run")
    shutil.copytree(folder, cfg.OUTPUT_DIR)
    return folder


def weights(folder):
    return torch.load(Path(folder, "model_final.pth"), weights_only=True)["model"]


def rows(folder):
    lines = Path(folder, "metrics.json").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k.startswith(COMPARED)} for line in lines]


def assert_same_run(folder, straight):
    one, other = weights(folder), weights(straight)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert json.dumps(rows(folder)) == json.dumps(rows(straight))  # as text: NaN is equal to itself
    assert len({row["iteration"] for row in rows(folder)}) == len(rows(folder))


def go_back(run, *, evaluated):
    """As a kill in the fourth iteration leaves the folder, or one in the evaluation behind the third."""
    for name in ("model_final.pth", "model_final.pth.sha256"):
        Path(run, name).unlink()
    store.tag_last(Path(run, "model_0000002.pth"))
    kept = []
    for line in Path(run, "metrics.json").read_text().splitlines():
        row = json.loads(line)
        if row["iteration"] == 2 and not evaluated:
            row = {key: value for key, value in row.items() if "/" not in key}
        if row["iteration"] < 4:
            kept.append(json.dumps(row) + "\n")
    Path(run, "metrics.json").write_text("".join(kept) + '{"iteration": 4, "total_l')


def messages(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("rethink_pretrain"), "propagate", True)
    caplog.set_level(logging.INFO)
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("evaluated", [True, False])
def test_a_killed_run_ends_as_if_nothing_had_been(cfg, straight, evaluated, caplog, monkeypatch):
    """Rows of metrics.json included, and the evaluation that the kill has taken."""
    said = messages(caplog, monkeypatch)
    go_back(cfg.OUTPUT_DIR, evaluated=evaluated)
    train(cfg, resume=True)
    assert_same_run(cfg.OUTPUT_DIR, straight)
    assert ("The evaluation after iteration 3 was lost" in said()) != evaluated


@pytest.mark.parametrize("damage", [b"", b"\0" * 1000])
def test_a_broken_checkpoint_is_named_and_passed_over(cfg, straight, damage, caplog, monkeypatch):
    said = messages(caplog, monkeypatch)
    Path(cfg.OUTPUT_DIR, "model_final.pth").write_bytes(damage)
    train(cfg, resume=True)
    assert "model_final.pth is broken and passed over: its sha256 is not the one noted" in said()
    assert_same_run(cfg.OUTPUT_DIR, straight)


def test_where_all_are_broken_nothing_starts_over(cfg, straight):
    for path in Path(cfg.OUTPUT_DIR).glob("*.pth"):
        os.truncate(path, 1000)
    before = Path(cfg.OUTPUT_DIR, "metrics.json").read_bytes()
    with pytest.raises(UserError, match=r"None of 3 checkpoints in .* is whole; the last, model_final\.pth"):
        train(cfg, resume=True)
    assert Path(cfg.OUTPUT_DIR, "metrics.json").read_bytes() == before


def test_a_checkpoint_of_another_model_is_refused(cfg, straight):
    cfg.MODEL.FPN.OUT_CHANNELS = 32
    with pytest.raises(UserError, match=r"is of another model: \d+ parameters have another name or shape"):
        train(cfg, resume=True)


def test_a_finished_run_says_so_and_is_evaluated(cfg, straight, caplog, monkeypatch):
    said = messages(caplog, monkeypatch)
    before = Path(cfg.OUTPUT_DIR, "model_final.pth").stat()
    metrics = train(cfg, resume=True)
    assert "This run is finished: 6 iterations. It is evaluated once more." in said()
    assert "Training from iteration" not in said()
    assert metrics["bbox"]["AP"] == rows(straight)[-1]["bbox/AP"]
    assert Path(cfg.OUTPUT_DIR, "model_final.pth").stat().st_mtime_ns == before.st_mtime_ns
    assert_same_run(cfg.OUTPUT_DIR, straight)


def test_a_run_that_stopped_early_is_evaluated_and_trained_on_when_asked(cfg, straight, caplog, monkeypatch):
    said = messages(caplog, monkeypatch)
    go_back(cfg.OUTPUT_DIR, evaluated=True)
    record = json.loads(Path(cfg.OUTPUT_DIR, "run.json").read_text())
    record["sessions"][-1]["ended"] = "stopped: bbox/AP 1.00, 2 evaluations without more than 1.00"
    Path(cfg.OUTPUT_DIR, "run.json").write_text(json.dumps(record))
    cfg.RETHINK.WATCH.PATIENCE = 2
    assert "AP" in train(cfg, resume=True)["bbox"]
    assert "stopped early: bbox/AP 1.00, 2 evaluations without more" in said()
    assert not Path(cfg.OUTPUT_DIR, "model_final.pth").exists()
    cfg.RETHINK.WATCH.PATIENCE = 0
    train(cfg, resume=True)
    assert_same_run(cfg.OUTPUT_DIR, straight)


def test_only_the_newest_checkpoints_stay_over_a_resume(cfg, straight, tmp_path):
    cfg.SOLVER.CHECKPOINT_PERIOD, cfg.RETHINK.KEEP_CHECKPOINTS = 1, 2
    go_back(cfg.OUTPUT_DIR, evaluated=True)
    train(cfg, resume=True)
    names = sorted(path.name for path in Path(cfg.OUTPUT_DIR).glob("*.pth"))
    assert names == ["model_0000003.pth", "model_0000004.pth", "model_best.pth", "model_final.pth"]
    assert_same_run(cfg.OUTPUT_DIR, straight)


class FullFrom:
    """A disk without room for checkpoints from the `first`-th on, for as many as `failures`."""

    def __init__(self, first, failures):
        self.first, self.failures, self.count = first, failures, 0
        self.write = store.write_checkpoint

    def __call__(self, *args, **kwargs):
        self.count += 1
        if self.first <= self.count < self.first + self.failures:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.write(*args, **kwargs)


def test_a_disk_that_is_full_for_a_while_ends_no_training(cfg, straight, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "write_checkpoint", FullFrom(first=1, failures=2))
    cfg.OUTPUT_DIR = str(tmp_path / "full")
    train(cfg)
    assert_same_run(cfg.OUTPUT_DIR, straight)
    lines = Path(cfg.OUTPUT_DIR, "incidents.jsonl").read_text().splitlines()
    incidents = [json.loads(line) for line in lines]
    assert [incident["file"] for incident in incidents] == ["model_0000002.pth", "model_best.pth"]
    assert all("No space left" in incident["reason"] for incident in incidents)


def test_a_last_checkpoint_that_cannot_be_written_is_an_error_in_the_end(cfg, tmp_path, monkeypatch):
    """Exit status 0 would let a script go on to what needs it."""
    monkeypatch.setattr(store, "write_checkpoint", FullFrom(first=3, failures=10))
    with pytest.raises(UserError, match=r"The last checkpoint could not be written .* No space left"):
        train(cfg)
    assert [row for row in rows(cfg.OUTPUT_DIR) if "bbox/AP" in row][-1]["iteration"] == 6  # evaluated, too
    assert store.find_good(Path(cfg.OUTPUT_DIR))[0].name == "model_0000002.pth"


def test_a_kill_before_the_first_tag_does_not_start_over(cfg, straight):
    """The file has its name, last_checkpoint does not know it yet."""
    go_back(cfg.OUTPUT_DIR, evaluated=True)
    Path(cfg.OUTPUT_DIR, "last_checkpoint").unlink()
    Path(cfg.OUTPUT_DIR, "model_best.pth").unlink()
    trainer = Trainer(cfg)
    trainer.resume_or_load(True)
    assert trainer.start_iter == 3


def nan_once(monkeypatch, iteration):
    """The loss of that iteration is not finite the first time that training comes there."""
    forward, bad = train_loop.forward_or_nan, [iteration]

    def forward_once(model, batch):
        losses = forward(model, batch)
        if bad and get_event_storage().iter == bad[0]:
            bad.pop()
            return {name: loss * math.nan for name, loss in losses.items()}
        return losses

    monkeypatch.setattr(train_loop, "forward_or_nan", forward_once)


def test_rolling_back_goes_on_with_other_images(cfg, tmp_path, monkeypatch):
    """NaN in the fifth iteration: back behind the third, and on with the images of the sixth."""
    nan_once(monkeypatch, 4)
    cfg.OUTPUT_DIR, cfg.RETHINK.NUMERICS.POLICY = str(tmp_path / "run"), "roll_back"
    train(cfg)
    state = torch.load(Path(cfg.OUTPUT_DIR, "model_final.pth"), weights_only=True)
    assert (state["iteration"], state["trainer"]["_trainer"]["samples"]) == (5, 10 + 3 * 2)
    sessions = json.loads(Path(cfg.OUTPUT_DIR, "run.json").read_text())["sessions"]
    assert [(s["start_iter"], s["end_iter"], s["ended"]) for s in sessions] == [
        (0, 4, "rolled back"),
        (3, 6, "finished"),
    ]
    assert [row["iteration"] for row in rows(cfg.OUTPUT_DIR)] == [0, 1, 2, 3, 4, 5, 6]
    (line,) = Path(cfg.OUTPUT_DIR, "incidents.jsonl").read_text().splitlines()
    incident = json.loads(line)
    assert (incident["iteration"], incident["kind"], incident["samples"]) == (4, "non-finite loss", 8)
    assert len(incident["image_ids"][0]) == 2


def test_rolling_back_before_the_first_checkpoint_starts_with_the_same_weights(cfg, tmp_path, monkeypatch):
    nan_once(monkeypatch, 1)
    built, build_model = [], Trainer.build_model.__func__

    def build(cls, cfg):
        model = build_model(cls, cfg)
        built.append({name: value.clone() for name, value in model.state_dict().items()})
        return model

    monkeypatch.setattr(Trainer, "build_model", classmethod(build))
    cfg.OUTPUT_DIR, cfg.RETHINK.NUMERICS.POLICY = str(tmp_path / "run"), "roll_back"
    seed_all_rng(cfg.SEED)
    train(cfg)
    first, second = built
    assert all(torch.equal(first[name], second[name]) for name in first)
    sessions = json.loads(Path(cfg.OUTPUT_DIR, "run.json").read_text())["sessions"]
    assert [session["start_iter"] for session in sessions] == [0, 0]


def test_signals_are_given_back_where_another_hook_fails(cfg, tmp_path):
    cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER = str(tmp_path / "run"), 1
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
    trainer = Trainer(cfg)

    def fail():
        raise ZeroDivisionError

    trainer._hooks[0].after_train = fail
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert before == [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
