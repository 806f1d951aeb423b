"""RETHINK.SCHEDULE to SOLVER: hand-computed values, contradictions, and resolving twice."""

import copy
from pathlib import Path

import pytest
import yaml
from conftest import host_config_file
from detectron2.config import CfgNode, get_cfg

from rethink_pretrain.config import add_rethink_config, load_config, resolve, scale_to
from rethink_pretrain.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"


def make_cfg(schedule: str, **solver) -> CfgNode:
    """The host's defaults with that schedule and those SOLVER keys, not resolved."""
    cfg = get_cfg()
    add_rethink_config(cfg)
    cfg.RETHINK.SCHEDULE = schedule
    cfg.SOLVER.update(solver)
    return cfg


def solver_of(cfg: CfgNode) -> tuple:
    solver = cfg.SOLVER
    return solver.MAX_ITER, solver.STEPS, solver.BASE_LR, solver.WARMUP_ITERS


def periods(cfg: CfgNode) -> tuple[int, int]:
    return cfg.TEST.EVAL_PERIOD, cfg.SOLVER.CHECKPOINT_PERIOD


def values(cfg: CfgNode) -> dict:
    """All values; tuples, inner ones too, as lists, because YAML knows no other."""
    return yaml.safe_load(cfg.dump())


class TestValues:
    @pytest.mark.parametrize(
        ("batch", "expected"),
        [
            (16, (540_000, (480_000, 520_000), 0.02, 500)),
            (64, (135_000, (120_000, 130_000), 0.08, 125)),
            (2, (4_320_000, (3_840_000, 4_160_000), 0.0025, 4000)),
        ],
    )
    def test_follow_the_batch(self, batch, expected):
        cfg = make_cfg("6x", IMS_PER_BATCH=batch)
        resolve(cfg)
        assert solver_of(cfg) == expected

    def test_follow_the_references(self):
        cfg = make_cfg("2x", IMS_PER_BATCH=32)
        cfg.RETHINK.REFERENCE_LR = 0.04
        cfg.RETHINK.REFERENCE_WARMUP_ITERS = 1000
        resolve(cfg)
        assert solver_of(cfg) == (90_000, (60_000, 80_000), 0.08, 500)

    def test_images_per_epoch(self):
        cfg = make_cfg("9ep", IMS_PER_BATCH=10)
        cfg.RETHINK.IMAGES_PER_EPOCH = 1000
        resolve(cfg)
        assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (900, (600, 800))

    def test_nothing_else_changes(self):
        cfg = make_cfg("6x", IMS_PER_BATCH=64)
        before = copy.deepcopy(cfg)
        resolve(cfg)
        for key in ("MAX_ITER", "STEPS", "BASE_LR", "WARMUP_ITERS"):
            assert cfg.SOLVER.pop(key) != before.SOLVER.pop(key)
        assert cfg == before

    def test_no_schedule_leaves_the_solver_alone(self):
        cfg = make_cfg("", MAX_ITER=123, STEPS=(45, 67), BASE_LR=0.5, WARMUP_ITERS=8, IMS_PER_BATCH=3)
        before = copy.deepcopy(cfg)
        resolve(cfg)
        assert cfg == before


class TestIdempotent:
    @pytest.mark.parametrize("schedule", ["", "1x", "6x", "1.7x", "73ep", "8.6M images"])
    @pytest.mark.parametrize("batch", [1, 7, 16, 24, 48, 64, 96])
    def test_twice(self, schedule, batch):
        cfg = make_cfg(schedule, IMS_PER_BATCH=batch)
        resolve(cfg)
        once = copy.deepcopy(cfg)
        resolve(cfg)
        assert cfg == once

    @pytest.mark.parametrize("name", ["scratch_6x.yaml", "finetune_1x.yaml"])
    @pytest.mark.parametrize("opts", [[], ["SOLVER.IMS_PER_BATCH", "24"], ["RETHINK.SCHEDULE", ""]])
    def test_dump_and_load(self, tmp_path, name, opts):
        """The `config.yaml` of a run is a config file like any other."""
        cfg = load_config(CONFIGS / name, opts=opts)
        dump = tmp_path / "config.yaml"
        dump.write_text(cfg.dump())
        assert values(load_config(dump)) == values(cfg)

    def test_dump_of_an_overlaid_config(self, tmp_path):
        cfg = load_config(CONFIGS / "scratch_3x.yaml", ["d2_defaults"])
        dump = tmp_path / "config.yaml"
        dump.write_text(cfg.dump())
        assert values(load_config(dump)) == values(cfg)


class TestContradictions:
    @pytest.mark.parametrize(
        ("key", "value", "right", "remedy"),
        [
            ("MAX_ITER", 1000, "540000", "Leave one of them out"),
            ("STEPS", (10, 20), "(480000, 520000)", "Leave one of them out"),
            ("BASE_LR", 0.01, "0.02", "Set RETHINK.REFERENCE_LR"),
            ("WARMUP_ITERS", 100, "500", "Set RETHINK.REFERENCE_WARMUP_ITERS"),
        ],
    )
    def test_refused_with_the_fix(self, key, value, right, remedy):
        with pytest.raises(UserError) as info:
            resolve(make_cfg("6x", **{key: value}))
        message = str(info.value)
        assert f"SOLVER.{key} {value} contradicts RETHINK.SCHEDULE '6x', which makes it {right}" in message
        assert "at 16 images per batch" in message
        assert remedy in message
        assert 'SCHEDULE to ""' in message
        assert "\n" not in message

    def test_the_fixes_work(self):
        hand_set = make_cfg("", MAX_ITER=1000, STEPS=(700, 900))
        resolve(hand_set)
        assert hand_set.SOLVER.MAX_ITER == 1000
        reference = make_cfg("6x")
        reference.RETHINK.REFERENCE_LR = 0.01
        resolve(reference)
        assert reference.SOLVER.BASE_LR == 0.01

    @pytest.mark.parametrize(
        ("key", "value"),
        [("MAX_ITER", 540_000), ("STEPS", (480_000, 520_000)), ("BASE_LR", 0.02), ("WARMUP_ITERS", 500)],
    )
    def test_equal_value_is_accepted(self, key, value):
        cfg = make_cfg("6x", **{key: value})
        resolve(cfg)
        assert solver_of(cfg) == (540_000, (480_000, 520_000), 0.02, 500)

    @pytest.mark.parametrize(
        ("batch", "base_lr"), [(24, 0.03), (48, 0.06), (40, 0.05), (56, 0.07), (12, 0.015)]
    )
    def test_learning_rate_as_a_human_writes_it(self, batch, base_lr):
        """0.03 is what the linear rule gives 24 images, whatever the last bit of the division says."""
        cfg = make_cfg("6x", IMS_PER_BATCH=batch, BASE_LR=base_lr)
        resolve(cfg)
        assert solver_of(cfg)[2] == pytest.approx(base_lr, rel=1e-12)

    def test_through_files(self):
        with pytest.raises(UserError, match=r"SOLVER\.MAX_ITER 5 contradicts"):
            load_config(CONFIGS / "scratch_6x.yaml", opts=["SOLVER.MAX_ITER", "5"])

    def test_other_schedule_over_a_dump(self, tmp_path):
        """Half of an old run's solver with half of a new one would be a silent mistake."""
        dump = tmp_path / "config.yaml"
        dump.write_text(load_config(CONFIGS / "scratch_6x.yaml").dump())
        with pytest.raises(UserError, match=r"contradicts RETHINK\.SCHEDULE '3x'"):
            load_config(dump, opts=["RETHINK.SCHEDULE", "3x"])

    @pytest.mark.parametrize("batch", [0, -16])
    def test_batch(self, batch):
        with pytest.raises(UserError, match=f"SOLVER.IMS_PER_BATCH is {batch}; it must be at least 1."):
            resolve(make_cfg("6x", IMS_PER_BATCH=batch))


class TestPeriods:
    """Of evaluation and checkpoints: as many images between two of them, whatever the batch."""

    @pytest.mark.parametrize(
        ("batch", "expected"), [(16, (20_000, 5000)), (64, (5000, 1250)), (2, (160_000, 40_000))]
    )
    def test_follow_the_batch(self, batch, expected):
        cfg = load_config(CONFIGS / "scratch_6x.yaml", opts=["SOLVER.IMS_PER_BATCH", str(batch)])
        assert periods(cfg) == expected

    def test_set_by_hand_stay(self):
        opts = ["TEST.EVAL_PERIOD", "123", "SOLVER.CHECKPOINT_PERIOD", "7", "SOLVER.IMS_PER_BATCH", "64"]
        cfg = load_config(CONFIGS / "scratch_6x.yaml", opts=[*opts, "RETHINK.IMAGES_PER_GPU", "2"])
        scale_to(cfg, 4)
        assert periods(cfg) == (123, 7)

    def test_are_never_zero(self):
        opts = ["SOLVER.IMS_PER_BATCH", "64", "RETHINK.REFERENCE_EVAL_PERIOD", "1"]
        assert load_config(CONFIGS / "scratch_6x.yaml", opts=opts).TEST.EVAL_PERIOD == 1

    def test_of_the_host_stay_without_a_reference(self):
        cfg = make_cfg("6x", IMS_PER_BATCH=64)
        resolve(cfg)
        assert periods(cfg) == (0, 5000)


class TestScale:
    @pytest.mark.parametrize("gpus", [1, 2, 4, 8, 16, 64])
    @pytest.mark.parametrize("images", [1, 2, 4])
    def test_is_the_linear_rule(self, gpus, images):
        """By hand: 6x is 8,640,000 images at 0.02 / 16 per image, drops after 7,680,000 and 8,320,000."""
        cfg = load_config(CONFIGS / "scratch_6x.yaml", opts=["RETHINK.IMAGES_PER_GPU", str(images)])
        scale_to(cfg, gpus)
        batch = gpus * images
        found = cfg.SOLVER.IMS_PER_BATCH
        assert found == batch
        assert solver_of(cfg) == (
            8_640_000 // batch,
            (7_680_000 // batch, 8_320_000 // batch),
            pytest.approx(0.00125 * batch),
            round(8000 / batch),
        )
        assert periods(cfg) == (round(320_000 / batch), round(80_000 / batch))

    def test_9x_on_32_gpus_is_detectron2s_own_file(self):
        host = get_cfg()
        host.merge_from_file(str(host_config_file("Misc/scratch_mask_rcnn_R_50_FPN_9x_gn.yaml")))
        cfg = load_config(CONFIGS / "scratch_9x.yaml", opts=["RETHINK.IMAGES_PER_GPU", "2"])
        scale_to(cfg, 32)
        keys = ("IMS_PER_BATCH", "MAX_ITER", "STEPS", "BASE_LR")
        assert [cfg.SOLVER[key] for key in keys] == [host.SOLVER[key] for key in keys]

    def test_twice_is_once(self):
        cfg = load_config(CONFIGS / "scratch_6x.yaml", opts=["RETHINK.IMAGES_PER_GPU", "2"])
        scale_to(cfg, 64)
        once = values(cfg)
        scale_to(cfg, 64)
        resolve(cfg)
        assert values(cfg) == once

    def test_a_number_of_processes_alone_changes_nothing(self):
        cfg = load_config(CONFIGS / "scratch_6x.yaml")
        before = values(cfg)
        scale_to(cfg, 64)
        assert values(cfg) == before

    @pytest.mark.parametrize(
        ("opts", "message"),
        [
            (
                ["RETHINK.IMAGES_PER_GPU", "2", "RETHINK.SCHEDULE", ""],
                "IMAGES_PER_GPU needs RETHINK.SCHEDULE",
            ),
            (["SOLVER.REFERENCE_WORLD_SIZE", "8"], "REFERENCE_WORLD_SIZE is for a solver set by hand"),
        ],
    )
    def test_contradictions_are_refused(self, opts, message):
        cfg = load_config(CONFIGS / "scratch_6x.yaml", opts=opts)
        with pytest.raises(UserError, match=message):
            scale_to(cfg, 8)
