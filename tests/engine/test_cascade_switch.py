"""The hook: when it turns the cascade on, what it clears, and that a resumed run has it once."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from rethink_pretrain.engine import Trainer
from rethink_pretrain.engine.cascade_switch import build_cascade_switch
from rethink_pretrain.errors import UserError


@pytest.fixture
def cascade_cfg(short_cfg):
    """Six iterations of two images, of which the last four (half an iteration of 16) run the cascade."""
    short_cfg.MODEL.ROI_HEADS.NAME = "SwitchedCascadeROIHeads"
    short_cfg.MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG = True
    short_cfg.RETHINK.CASCADE_ITERS = 0.5
    return short_cfg


def test_it_is_on_for_the_last_iterations(cascade_cfg):
    trainer = Trainer(cascade_cfg)
    stages = []
    run_step = trainer.run_step
    trainer.run_step = lambda: (stages.append(trainer.model.roi_heads.num_cascade_stages), run_step())
    trainer.resume_or_load(False)
    trainer.train()
    assert stages == [1, 1, 3, 3, 3, 3]
    rows = [
        json.loads(line) for line in Path(cascade_cfg.OUTPUT_DIR, "metrics.json").read_text().splitlines()
    ]
    assert any("loss_cls_stage2" in row for row in rows)


def test_momentum_of_the_new_stages_starts_anew(cascade_cfg):
    trainer = Trainer(cascade_cfg)
    new, first = (trainer.model.roi_heads.box_head[stage].fc1.weight for stage in (1, 0))
    for parameter in (new, first):
        trainer.optimizer.state[parameter]["momentum_buffer"] = torch.ones_like(parameter)
    switch = build_cascade_switch(cascade_cfg)
    switch.trainer = trainer
    trainer.iter = 1
    switch.before_step()
    assert not trainer.model.roi_heads.cascade_on and new in trainer.optimizer.state
    trainer.iter = 2
    switch.before_step()
    assert trainer.model.roi_heads.cascade_on
    assert new not in trainer.optimizer.state and first in trainer.optimizer.state


def test_a_resumed_run_keeps_its_stages(cascade_cfg):
    trainer = Trainer(cascade_cfg)
    trainer.resume_or_load(False)
    trainer.train()
    weight = trainer.model.roi_heads.box_head[1].fc1.weight.clone()
    cascade_cfg.SOLVER.MAX_ITER = 7
    again = Trainer(cascade_cfg)
    assert not again.model.roi_heads.cascade_on
    again.resume_or_load(True)
    assert again.model.roi_heads.cascade_on
    assert torch.equal(again.model.roi_heads.box_head[1].fc1.weight, weight)


def test_the_linear_rule(cascade_cfg):
    cascade_cfg.RETHINK.CASCADE_ITERS, cascade_cfg.SOLVER.MAX_ITER = 270_000, 202_500
    cascade_cfg.SOLVER.IMS_PER_BATCH = 64
    assert build_cascade_switch(cascade_cfg)._iterations == 67_500


def test_no_switch_without_cascade(cascade_cfg):
    cascade_cfg.RETHINK.CASCADE_ITERS, cascade_cfg.MODEL.ROI_HEADS.NAME = 100, "StandardROIHeads"
    assert build_cascade_switch(cascade_cfg) is None


def test_weights_whose_cascade_is_off_do_not_keep_it_off(cascade_cfg):
    cascade_cfg.RETHINK.CASCADE_ITERS = 0
    trainer = Trainer(cascade_cfg)
    trainer.model.load_state_dict({**trainer.model.state_dict(), "roi_heads.cascade_on": torch.tensor(False)})
    switch = build_cascade_switch(cascade_cfg)
    switch.trainer = trainer
    trainer.iter = 0
    switch.before_step()
    assert trainer.model.roi_heads.is_on


def test_longer_than_the_run(cascade_cfg):
    cascade_cfg.RETHINK.CASCADE_ITERS = 270_000
    with pytest.raises(UserError, match=r"CASCADE_ITERS 270000 .* 2160000 of the run's 6 iterations"):
        build_cascade_switch(cascade_cfg)


def test_a_model_without_roi_heads(cascade_cfg):
    switch = build_cascade_switch(cascade_cfg)
    switch.trainer = SimpleNamespace(model=torch.nn.Identity())
    with pytest.raises(UserError, match="which Identity does not have"):
        switch.before_train()


def test_distributed_training_goes_through_the_switch(cascade_cfg, tmp_path):
    """DDP without find_unused_parameters stops at a step when the one before left out a gradient."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        trainer = Trainer(cascade_cfg)
        # The host wraps models for more than one process only.
        wrapped = DistributedDataParallel(trainer.model)
        trainer.model = trainer._trainer.model = wrapped
        trainer.resume_or_load(False)
        trainer.train()
        assert trainer.iter == 6 and wrapped.module.roi_heads.cascade_on
    finally:
        dist.destroy_process_group()
