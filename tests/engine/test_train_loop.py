"""One step of ours against one step of plain PyTorch, a run in two halves against a whole one, and bad steps.

Bad steps: what is wrong with which image is known, so a step that is left out has an oracle, the state
before it.
"""

import copy
import io
import json
import os
import signal
from pathlib import Path

import pytest
import tiny_loop
import torch
from detectron2.utils.events import EventStorage
from tiny_loop import build_loop, snapshot

from rethink_pretrain.engine import Trainer, train
from rethink_pretrain.engine.numerics import RollBack
from rethink_pretrain.engine.train_loop import TrainLoop
from rethink_pretrain.errors import UserError


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return copy.deepcopy(trainer.model.state_dict())


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def run(cfg, until: int, resume: bool = False) -> Trainer:
    """Train up to an iteration, as if stopped behind a checkpoint there."""
    torch.manual_seed(0)  # of the random weights; tools do it in `start`
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume)
    trainer.max_iter = until
    trainer.train()
    return trainer


def test_micro_batches_add_up_to_the_mean_of_their_gradients(short_cfg):
    """Against autograd's gradients of each micro-batch alone, averaged by hand."""
    short_cfg.SOLVER.IMS_PER_BATCH, short_cfg.RETHINK.MICRO_BATCH = 4, 2
    trainer = Trainer(short_cfg)
    loop = trainer._trainer
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    batches = iter(trainer.data_loader)
    expected = [torch.zeros_like(p) for p in parameters]
    with EventStorage():
        for number in range(2):
            losses = loop._backward(next(batches), number)  # scaled by 1/2 already
            assert len(losses) == 5
        summed = [p.grad.clone() for p in parameters]
        batches = iter(trainer.data_loader)
        for number in range(2):
            trainer.model.zero_grad()
            loop._backward(next(batches), number)
            for total, parameter in zip(expected, parameters):
                total += parameter.grad
    for found, wanted in zip(summed, expected):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)


def test_a_step_draws_the_same_whatever_came_before(short_cfg):
    trainer = Trainer(short_cfg)
    batch = next(iter(trainer.data_loader))
    with EventStorage():
        first = trainer._trainer._backward(batch, 0)
        torch.rand(1000)
        again = trainer._trainer._backward(batch, 0)
        other = trainer._trainer._backward(batch, 1)
    assert all(first[name] == again[name] for name in first)
    assert any(first[name] != other[name] for name in first)  # RoIs are sampled anew


@pytest.mark.parametrize("workers", [0, 2])
def test_two_halves_are_a_whole(short_cfg, tmp_path, workers):
    short_cfg.DATALOADER.NUM_WORKERS = workers
    short_cfg.OUTPUT_DIR = str(tmp_path / "whole")
    whole = weights(run(short_cfg, 6))
    short_cfg.OUTPUT_DIR = str(tmp_path / "halves")
    run(short_cfg, 3)
    resumed = run(short_cfg, 6, resume=True)
    assert resumed.start_iter == 3 and resumed.samples == 12
    assert_same(weights(resumed), whole)


def test_a_batch_of_micro_batches_may_be_split_anew_on_resume(short_cfg, tmp_path):
    """4 images at once, then 2 and 2: another step, but the same images go on."""
    short_cfg.SOLVER.IMS_PER_BATCH = 4
    run(short_cfg, 3)
    short_cfg.RETHINK.MICRO_BATCH = 2
    resumed = Trainer(short_cfg)
    resumed.resume_or_load(True)
    assert resumed.samples == 12


def test_samples_of_a_hosts_checkpoint_follow_from_its_iterations(short_cfg):
    trainer = run(short_cfg, 3)
    state = trainer._trainer.state_dict()
    del state["samples"]
    state["iteration"] = 2
    trainer._trainer.load_state_dict(state)
    assert trainer.samples == 6


def test_an_early_stop_ends_with_a_checkpoint_to_evaluate(short_cfg):
    trainer = Trainer(short_cfg)
    trainer.resume_or_load(False)
    run_step = trainer.run_step

    def stop_in_the_third():
        run_step()
        if trainer.iter == 2:
            trainer.stop("enough")

    trainer.run_step = stop_in_the_third
    trainer.train()
    assert trainer.ended == "stopped: enough" and trainer.samples == 6
    saved = torch.load(Path(short_cfg.OUTPUT_DIR, "model_final.pth"), weights_only=False)
    assert saved["iteration"] == saved["trainer"]["iteration"] == 2
    assert_same(saved["model"], weights(trainer))


@pytest.mark.parametrize("at", [2, 4, 5])
def test_an_interrupted_run_is_saved_recorded_and_not_evaluated(short_cfg, at):
    """Also one step before the end, where the host would take it for finished, and in the last evaluation."""
    trainer = Trainer(short_cfg)
    trainer.resume_or_load(False)
    run_step = trainer.run_step

    def interrupt():
        run_step()
        if trainer.iter == at:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.run_step = interrupt
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as exit_info:
        trainer.train()
    assert exit_info.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == handler
    folder = Path(short_cfg.OUTPUT_DIR)
    (session,) = json.loads((folder / "run.json").read_text())["sessions"]
    assert (session["end_iter"], session["images_seen"]) == (at + 1, 2 * (at + 1))
    assert session["ended"] == "interrupted"
    assert not hasattr(trainer, "_last_eval_results")
    trainer.checkpointer.wait()  # as the end of a process does
    last = torch.load(folder / (folder / "last_checkpoint").read_text(), weights_only=False)
    assert last["iteration"] == at
    assert_same(last["model"], weights(trainer))


KINDS = ["nan", "gradient", "refused", "huge"]
LONG_BAD = {97: "nan", 110: "huge", 111: "gradient", 119: "refused"}  # iterations 24, 27, 27 and 29


def incidents(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "incidents.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("micro_batches", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_step_leaves_weights_and_momentum_as_they_were(tmp_path, kind, micro_batches):
    loop = build_loop(tmp_path, {102: kind}, micro_batches=micro_batches)
    loop.train(0, 25)
    before = snapshot(loop)
    loop.train(25, 26)
    tiny_loop.assert_same(snapshot(loop), before)
    assert loop.samples == 104
    assert loop.storage.history("incidents").latest() == 1
    if kind != "huge":  # whose loss is a number, and is shown
        assert "total_loss" not in loop.storage.histories() or kind == "gradient"
    loop.train(26, 27)
    after = snapshot(loop)
    assert any(not torch.equal(after[name], before[name]) for name in before)
    (line,) = incidents(tmp_path)
    assert (line["iteration"], line["image_ids"]) == (25, [[100, 101, 102, 103]])


def test_without_a_guard_a_good_run_is_the_same(tmp_path):
    guarded, plain = (build_loop(tmp_path, {}, guarded=guarded) for guarded in (True, False))
    for loop in (guarded, plain):
        loop.train(0, 10)
        assert "incidents" not in loop.storage.histories()
    tiny_loop.assert_same(snapshot(guarded), snapshot(plain))
    assert not (tmp_path / "incidents.jsonl").exists()
    plain.load_state_dict(guarded.state_dict())
    state = plain.state_dict()
    assert "loss_guard" not in state
    guarded.load_state_dict(state)  # as of a run before there were guards


@pytest.mark.parametrize("policy", ["skip", "lower_lr"])
@pytest.mark.parametrize("resumed_at", [23, 25, 28])
def test_a_resumed_run_with_bad_steps_is_the_straight_one(tmp_path, policy, resumed_at):
    """Bit for bit: before the first bad step, between two, and so that the window of losses matters."""
    straight = build_loop(tmp_path / "straight", LONG_BAD, policy=policy)
    straight.train(0, 30)
    first = build_loop(tmp_path / "halves", LONG_BAD, policy=policy)
    first.train(0, resumed_at)
    file = io.BytesIO()
    torch.save([first.state_dict(), first.model.state_dict()], file)
    file.seek(0)
    loop_state, model_state = torch.load(file, weights_only=True)
    second = build_loop(tmp_path / "halves", LONG_BAD, policy=policy)
    second.load_state_dict(loop_state)
    second.model.load_state_dict(model_state)
    second.train(resumed_at, 30)
    tiny_loop.assert_same(snapshot(second), snapshot(straight))
    assert second.state_dict()["loss_guard"] == straight.state_dict()["loss_guard"]
    lines = [incidents(tmp_path / name) for name in ("straight", "halves")]
    for line in (*lines[0], *lines[1]):
        del line["time"]
    assert lines[0] == lines[1]
    assert [line["iteration"] for line in lines[0]] == [24, 27, 29]


def test_lower_lr_halves_what_the_schedule_gives(tmp_path):
    bad = {40: "nan", 60: "nan"}
    halved, plain = (build_loop(tmp_path / name, bad, policy=name) for name in ("lower_lr", "skip"))
    ratios = []
    for iteration in range(25):
        for loop in (halved, plain):
            loop.train(iteration, iteration + 1)
        rates = [loop.storage.history("lr").latest() for loop in (halved, plain)]
        ratios.append(rates[0] / rates[1])
    # The hook writes the rate behind the step, which is then halved already.
    assert ratios == [1.0] * 10 + [0.5] * 5 + [0.25] * 10


def test_a_roll_back_goes_on_with_the_images_behind_the_bad_ones(tmp_path):
    loop = build_loop(tmp_path, {41: "nan"}, policy="roll_back")
    loop.train(0, 6)
    state, weights = loop.state_dict(), copy.deepcopy(loop.model.state_dict())
    with pytest.raises(RollBack) as error:
        loop.train(6, 20)
    assert (error.value.iteration, error.value.samples) == (10, 44)

    resumed = build_loop(tmp_path, {41: "nan"}, policy="roll_back")
    resumed.load_state_dict(copy.deepcopy(state))
    resumed.model.load_state_dict(weights)
    resumed.go_on_behind(error.value)
    seen = []
    hook = resumed.model.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]["image_id"]))
    resumed.train(6, 9)
    hook.remove()
    assert seen == [44, 48, 52] and resumed.samples == 56
    counts = resumed.state_dict()["loss_guard"]
    assert (counts["incidents"], counts["in_a_row"]) == (1, 1)
    resumed.train(9, 12)  # beyond iteration 10
    assert resumed.state_dict()["loss_guard"]["in_a_row"] == 0


def test_stop_ends_training_with_the_weights_before(tmp_path):
    loop = build_loop(tmp_path, {17: "gradient"}, policy="stop")
    loop.train(0, 4)
    before = snapshot(loop)
    with pytest.raises(UserError, match="Iteration 4: non-finite gradient"):
        loop.train(4, 9)
    tiny_loop.assert_same(snapshot(loop), before)


class ShrinkingScaler:
    """As torch's for fp16, whose gradients are infinite at every scale; it needs a GPU."""

    def __init__(self, scale: float):
        self._scale = scale

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        return loss

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        pass

    def update(self) -> None:
        self._scale /= 2

    def get_scale(self) -> float:
        return self._scale


def test_updates_that_fp16_leaves_out_count_once_the_scale_is_below_one(tmp_path):
    loop = build_loop(tmp_path, {}, max_in_a_row=4)
    loop.train(0, 1)
    loop._scaler = ShrinkingScaler(8.0)
    with pytest.raises(UserError, match="incident 4 in a row"):
        loop.train(1, 20)
    assert [line["iteration"] for line in incidents(tmp_path)] == [4, 5, 6, 7]  # of 1/2, 1/4, ...
    assert {line["kind"] for line in incidents(tmp_path)} == {"non-finite gradient"}


def test_an_image_with_nan_is_left_out_of_a_real_run(short_cfg):
    """The host's RPN raises for it; the run goes on, and its metrics are numbers."""
    trainer = Trainer(short_cfg)
    forward = trainer.model.preprocess_image

    def spoil(batch):
        images = forward(batch)
        images.tensor *= float("nan") if trainer.iter == 2 else 1.0
        return images

    trainer.model.preprocess_image = spoil
    trainer.train()
    assert trainer.ended == "finished" and trainer.samples == 12
    assert all(value.isfinite().all() for value in trainer.model.state_dict().values())
    (line,) = incidents(Path(short_cfg.OUTPUT_DIR))
    assert (line["iteration"], line["kind"], len(line["image_ids"][0])) == (2, "non-finite loss", 2)
    rows = [json.loads(row) for row in Path(short_cfg.OUTPUT_DIR, "metrics.json").read_text().splitlines()]
    assert {row["incidents"] for row in rows if "incidents" in row} == {1}


def test_a_real_run_rolls_back_and_trains_to_its_end(short_cfg, monkeypatch):
    """The fifth step, behind the checkpoint of three, is bad wherever its images are."""
    backward = TrainLoop._backward

    def spoil(loop, batch, number):
        losses = backward(loop, batch, number)
        return {name: loss * float("nan") for name, loss in losses.items()} if loop.samples == 8 else losses

    monkeypatch.setattr(TrainLoop, "_backward", spoil)
    short_cfg.RETHINK.NUMERICS.POLICY = "roll_back"
    train(short_cfg)
    folder = Path(short_cfg.OUTPUT_DIR)
    (line,) = incidents(folder)
    assert (line["iteration"], line["action"], line["samples"]) == (4, "roll_back", 8)
    last = torch.load(folder / "model_final.pth", weights_only=False)
    assert last["iteration"] == 5
    assert last["trainer"]["_trainer"]["samples"] == 10 + 3 * 2
    assert last["trainer"]["_trainer"]["loss_guard"]["incidents"] == 1
