"""The doctor as a whole: order, table of parts, what its findings do, several processes."""

import json
import logging
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from doctor_cases import toy_cfg
from torch.multiprocessing import get_context

from rethink_pretrain.engine import doctor
from rethink_pretrain.engine.doctor import (
    Finding,
    check_up,
    describe_parts,
    enforce,
    examine,
)
from rethink_pretrain.engine.doctor.parts import area_of, part_of
from rethink_pretrain.engine.doctor.patient import join_names
from rethink_pretrain.errors import UserError


@pytest.fixture
def cfg(tmp_path):
    return toy_cfg("OUTPUT_DIR", tmp_path)


@pytest.fixture
def model(cfg):
    return build_model(cfg)


def test_a_healthy_model_has_no_finding(cfg, model):
    assert examine(cfg, model) == []
    assert doctor.report([]) == "healthy: the doctor found nothing."


class TestParts:
    @pytest.mark.parametrize(
        ("name", "area", "part"),
        [
            ("backbone.bottom_up.res2.0.conv1.weight", "backbone", "res2"),
            ("backbone.stem.conv1.weight", "backbone", "stem"),
            ("backbone.fpn_lateral2.weight", "fpn", "fpn"),
            ("proposal_generator.rpn_head.conv.weight", "rpn", "rpn"),
            ("roi_heads.box_head.0.conv1.weight", "box head", "box head"),
            ("roi_heads.keypoint_head.conv_fcn1.weight", "keypoint head", "keypoint head"),
            ("head.cls_subnet.0.weight", "head", "head"),
            ("sem_seg_head.p2.0.weight", "sem seg head", "sem seg head"),
        ],
    )
    def test_names(self, name, area, part):
        assert (area_of(name), part_of(name)) == (area, part)

    def test_table(self, model):
        model.backbone.bottom_up.stem.requires_grad_(False)
        model.backbone.bottom_up.res2[0].conv1.norm = FrozenBatchNorm2d(32)
        missing = [name for name, _ in model.named_parameters() if "bottom_up" not in name]
        missing.append("backbone.bottom_up.res3.0.conv1.norm.weight")  # 64 of 131,712
        rows = [line.split(maxsplit=3) for line in describe_parts(model, missing).splitlines()]
        assert [row[0] for row in rows[:7]] == ["part", "stem", "res2", "res3", "res4", "res5", "fpn"]
        # 32 x 3 x 7 x 7 weights, and scale and bias of 32.
        assert rows[1][1:3] == ["4,768", "0"] and rows[1][3].split() == ["GN", "file"]
        assert rows[2][3].split() == ["FrozenBN+GN", "file"]
        assert rows[3][3].split(maxsplit=1) == ["GN", "file, 64 random"]
        assert rows[6][3].split() == ["GN", "random"]
        total = sum(parameter.numel() for parameter in model.parameters())
        assert rows[-1][:3] == ["total", f"{total:,}", f"{total - 4768:,}"]

    def test_nothing_loaded(self, model):
        lines = describe_parts(model, None).splitlines()
        assert all(line.endswith(" random") for line in lines[1:])

    def test_join_names(self):
        assert join_names(["a", "b"]) == "a, b"
        assert join_names("abcdef") == "a, b, c and 3 more"


class TestEnforce:
    FINDINGS = [Finding("stop", "A.", "a."), Finding("stop", "B.", "b."), Finding("warn", "C.", "c.")]

    @pytest.fixture
    def log(self, caplog, monkeypatch):
        logger = logging.getLogger("rethink_pretrain.engine.doctor")
        monkeypatch.setattr(logger, "propagate", False)  # the host's set-up may have cut it off or not
        logger.addHandler(caplog.handler)
        caplog.set_level(logging.INFO, logger.name)
        yield caplog
        logger.removeHandler(caplog.handler)

    def test_stop(self, log):
        with pytest.raises(UserError) as caught:
            enforce(self.FINDINGS, "stop")
        lines = str(caught.value).splitlines()
        assert lines[1:3] == ["1. A. Fix: a.", "2. B. Fix: b."] and len(lines) == 4
        assert "RETHINK.DOCTOR" in lines[3]
        assert log.messages == ["warn: C. Fix: c."]

    def test_warn(self, log):
        enforce(self.FINDINGS, "warn")
        assert (
            log.messages == doctor.report(self.FINDINGS).splitlines() == [str(one) for one in self.FINDINGS]
        )

    def test_check_up(self, cfg, model, log):
        model.backbone.bottom_up.stem.requires_grad_(False)
        with pytest.raises(UserError, match="3 parameters are frozen"):
            check_up(cfg, model)
        assert "4,768" in log.messages[0]
        cfg.RETHINK.DOCTOR = "warn"
        check_up(cfg, model)
        assert log.messages[-1].startswith("stop: 3 parameters")
        cfg.RETHINK.DOCTOR = "off"
        log.clear()
        check_up(cfg, model)
        assert log.messages == []

    def test_grave_ones_come_first(self, cfg, model):
        cfg.RETHINK.IMAGES_PER_EPOCH = 50_000
        model.backbone.bottom_up.stem.requires_grad_(False)
        assert [finding.severity for finding in examine(cfg, model)] == ["stop", "warn"]


def check_up_of_rank(rank: int, folder: str) -> list[str]:
    """Process `rank` of two, twice: the model of the first is sick, then that of the second."""
    dist.init_process_group(
        "gloo", f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    try:
        outcomes = []
        for sick in (0, 1):
            cfg = toy_cfg("OUTPUT_DIR", folder)
            model = build_model(cfg)
            model.backbone.bottom_up.stem.requires_grad_(rank != sick)
            try:
                check_up(cfg, model)
                outcomes.append("trains")
            except UserError as error:
                outcomes.append(str(error))
        Path(folder, f"rank{rank}.json").write_text(json.dumps(outcomes))
        dist.barrier()
    finally:
        dist.destroy_process_group()
    return outcomes


@pytest.mark.slow
def test_all_processes_go_by_the_findings_of_the_first(tmp_path):
    """Else one would stop and the others would wait for it in the first step."""
    other = get_context("spawn").Process(target=check_up_of_rank, args=(1, str(tmp_path)))
    other.start()
    try:
        first = check_up_of_rank(0, str(tmp_path))
    finally:
        other.join(60)
        other.kill()
    second = json.loads((tmp_path / "rank1.json").read_text())
    assert first == second and "3 parameters are frozen" in first[0] and first[1] == "trains"
