"""One step of ours against one step of plain PyTorch, and a run in two halves against a whole one."""

import copy
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage

from rethink_pretrain.engine import Trainer


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
    """Also one step before the end, where the host would take it for finished; behind the last step it is."""
    trainer = Trainer(short_cfg)
    trainer.resume_or_load(False)
    run_step = trainer.run_step

    def interrupt():
        run_step()
        if trainer.iter == at:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.run_step = interrupt
    handler = signal.getsignal(signal.SIGTERM)
    if at == 5:
        trainer.train()
    else:
        with pytest.raises(SystemExit) as exit_info:
            trainer.train()
        assert exit_info.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == handler
    folder = Path(short_cfg.OUTPUT_DIR)
    (session,) = json.loads((folder / "run.json").read_text())["sessions"]
    assert (session["end_iter"], session["images_seen"]) == (at + 1, 2 * (at + 1))
    assert session["ended"] == ("finished" if at == 5 else "interrupted")
    assert hasattr(trainer, "_last_eval_results") == (at == 5)
    last = torch.load(folder / (folder / "last_checkpoint").read_text(), weights_only=False)
    assert last["iteration"] == at
    assert_same(last["model"], weights(trainer))
