"""bf16 against fp32 and float64: what a step computes in which type, and how far the two are apart."""

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from rethink_pretrain.engine import Trainer
from rethink_pretrain.engine.precision import autocast, prepare_for, settle_precision

CPU = torch.device("cpu")


def losses_of(cfg, precision: str) -> list[dict[str, float]]:
    """Of each step of a short run."""
    cfg.RETHINK.SPEED.PRECISION = precision
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    found = []
    with EventStorage(0) as storage:
        for trainer._trainer.iter in range(4):
            trainer._trainer.run_step()
            latest = storage.latest().items()
            found.append({name: value for name, (value, _) in latest if "loss" in name})
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in trainer.model.parameters())
    return found


def test_losses_are_close_to_those_of_fp32(short_cfg):
    """RoIs are drawn from proposals that differ a little, so a loss of theirs differs by more."""
    for plain, fast in zip(losses_of(short_cfg, "fp32"), losses_of(short_cfg, "bf16"), strict=True):
        assert plain.keys() == fast.keys() and plain != fast
        assert fast["total_loss"] == pytest.approx(plain["total_loss"], rel=0.1)
        assert fast["loss_rpn_cls"] == pytest.approx(plain["loss_rpn_cls"], rel=0.02)


def test_convolutions_are_bf16_and_losses_fp32(short_cfg):
    short_cfg.RETHINK.SPEED.PRECISION = "bf16"
    trainer = Trainer(short_cfg)
    seen = {}

    def note(name):
        return lambda module, inputs, output: seen.update({name: _types(output)})

    for name in ("backbone", "proposal_generator.rpn_head", "roi_heads.box_predictor"):
        trainer.model.get_submodule(name).register_forward_hook(note(name))
    trainer.model.roi_heads.mask_head.predictor.register_forward_hook(note("mask"))
    with EventStorage(0):
        losses = trainer._trainer._backward(next(iter(trainer.data_loader)), 0)
    assert seen.pop("backbone") == {torch.bfloat16}
    assert len(seen) == 3 and all(types == {torch.float32} for types in seen.values())
    assert _types(losses) == {torch.float32}


def _types(value) -> set[torch.dtype]:
    if isinstance(value, torch.Tensor):
        return {value.dtype}
    items = value.values() if isinstance(value, dict) else value
    return {dtype for item in items for dtype in _types(item)}


def test_rois_keep_their_place():
    """On a ramp RoIAlign returns the coordinate; a box that bf16 would move by 2 px tells."""
    pooler = ROIPooler(1, (1.0,), 0, "ROIAlignV2")
    model = prepare_for("bf16", torch.nn.Sequential(pooler, torch.nn.Linear(1, 1)))
    ramp = torch.arange(1024).remainder(128).float().expand(1, 1, 32, -1)  # whole numbers that bf16 has
    box = torch.tensor([[900.0, 3.0, 902.0, 5.0]])
    with autocast(CPU, "bf16"):
        found = model[0]([ramp.bfloat16()], [Boxes(box)])
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(901 - 0.5 - 7 * 128)


def test_group_norm_has_fp32_statistics():
    """A mean far from 0, which bf16's sums would lose: against float64."""
    x = (30 + torch.randn(2, 64, 37, 41)).bfloat16()
    with autocast(CPU, "bf16"):
        found = F.group_norm(x, 32).float()
    torch.testing.assert_close(found, F.group_norm(x.double(), 32).float(), rtol=2**-8, atol=1e-3)


def test_an_evaluation_has_the_same_keys_and_the_training_precision(short_cfg):
    results = {}
    for precision in ("fp32", "bf16"):
        short_cfg.RETHINK.SPEED.PRECISION = precision
        model = Trainer.build_model(short_cfg)
        types = set()
        model.backbone.register_forward_hook(lambda m, i, output, types=types: types.update(_types(output)))
        results[precision] = Trainer.test(short_cfg, model)
        assert types == {torch.bfloat16 if precision == "bf16" else torch.float32}
    assert {name: set(v) for name, v in results["fp32"].items()} == {
        name: set(v) for name, v in results["bf16"].items()
    }


def test_fp32_changes_nothing():
    model = torch.nn.Sequential(ROIPooler(1, (1.0,), 0, "ROIAlignV2"))
    assert prepare_for("fp32", model) is model and not model[0]._forward_pre_hooks
    with autocast(CPU, "fp32"):
        assert torch.nn.Linear(1, 1)(torch.ones(1, 1)).dtype == torch.float32


def test_a_cpu_without_bf16_is_told(monkeypatch, caplog):
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False, raising=False)
    prepare_for("bf16", torch.nn.Linear(1, 1))
    assert "fp32 is faster here" in caplog.text


def test_auto_is_what_the_device_computes(short_cfg, monkeypatch, tmp_path):
    """And what the run in the folder has, on whatever machine it goes on."""
    short_cfg.OUTPUT_DIR = str(tmp_path)
    short_cfg.RETHINK.SPEED.PRECISION = "auto"
    for can, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda can=can: can, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
        settled = short_cfg.clone()
        settle_precision(settled, "cpu")
        assert expected == settled.RETHINK.SPEED.PRECISION
    (tmp_path / "config.yaml").write_text("RETHINK: {SPEED: {PRECISION: bf16}}")
    new, old = short_cfg.clone(), short_cfg.clone()
    settle_precision(new, "cpu")  # the file is of an evaluation, or of a start that failed
    assert new.RETHINK.SPEED.PRECISION == "fp32"
    settle_precision(short_cfg, "cpu", goes_on=True)
    assert short_cfg.RETHINK.SPEED.PRECISION == "bf16"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    (tmp_path / "config.yaml").write_text("RETHINK: {SPEED: {}}")  # of before there was the key
    settle_precision(old, "cpu", goes_on=True)
    assert old.RETHINK.SPEED.PRECISION == "fp32"


def test_a_chosen_precision_stays(short_cfg, tmp_path):
    short_cfg.OUTPUT_DIR = str(tmp_path)
    (tmp_path / "config.yaml").write_text("RETHINK: {SPEED: {PRECISION: bf16}}")
    settle_precision(short_cfg, "cpu")
    assert short_cfg.RETHINK.SPEED.PRECISION == "fp32"
