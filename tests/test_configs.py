"""Every config loads and builds; what its name and its header promise is what it resolves to."""

import json
import re
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from conftest import PAPER_SCHEDULES
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from rethink_pretrain.config import load_config

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
OVERLAYS = sorted(CONFIGS.glob("**/_overlay/*.yaml"))
ALL = sorted(path for path in CONFIGS.rglob("*.yaml") if not {"_overlay", "sweeps"} & set(path.parts))
OURS = [path for path in ALL if "toy" not in path.parts]  # all that are not on the toy set
SCRATCH = [path for path in OURS if path.stem.startswith("scratch_")]
FINETUNE = [path for path in OURS if path.stem.startswith("finetune_")]
BY_LENGTH = [path for path in OURS if re.search(r"_[1-9]+x$", path.stem)]
BY_ROOT = [path for path in BY_LENGTH if path.parent == CONFIGS]
TABLE_1_R101 = [path for path in BY_LENGTH if re.search(r"R101_gn_\dx$", path.stem)]
TABLE_1 = [path for path in BY_ROOT if path.stem[-2] in "23456"] + TABLE_1_R101
GOLDEN = Path(__file__).parent / "golden" / "models.json"

# Table 1 of the paper at 2x to 6x.
BOX_AP = {
    "scratch": (36.8, 39.5, 40.6, 40.7, 41.3),
    "finetune": (40.3, 40.8, 40.9, 40.9, 41.1),
    "paper/scratch_R101_gn": (38.2, 41.0, 41.8, 42.2, 42.7),
    "paper/finetune_R101_gn": (41.8, 42.3, 42.3, 41.9, 42.2),
}
# 6x of table 2, 2x and 3x of Detectron's model zoo; nobody reports the others.
MASK_AP = {
    "scratch_3x": 35.2,
    "scratch_6x": 36.6,
    "finetune_2x": 35.7,
    "finetune_3x": 36.1,
    "finetune_6x": 36.4,
    "paper/scratch_R101_gn_3x": 36.4,
    "paper/scratch_R101_gn_6x": 37.6,
    "paper/finetune_R101_gn_2x": 36.8,
    "paper/finetune_R101_gn_3x": 37.2,
}
# Seconds per iteration in Detectron's model zoo.
SECONDS = {
    "scratch": 1.087,
    "finetune": 1.033,
    "finetune_2x": 1.017,
    "scratch_R101_gn": 1.243,
    "finetune_R101_gn": 1.171,
    "finetune_R101_gn_2x": 1.151,
}

LENGTHS = ("1x", "2x", "3x", "4x", "5x", "6x", "9x")

every_config = pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(CONFIGS)))
every_real_config = pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
every_length = pytest.mark.parametrize("path", BY_LENGTH, ids=lambda path: path.stem)


@cache
def load(path: Path) -> CfgNode:
    return load_config(path)


_models: dict[str, nn.Module] = {}


def build(cfg: CfgNode, device: str = "meta") -> nn.Module:
    """One model for all configs that describe the same one; on "meta" it has shapes and no numbers."""
    cfg = cfg.clone()
    cfg.MODEL.DEVICE = device
    cfg.MODEL.WEIGHTS = ""
    description = cfg.MODEL.dump() + cfg.RETHINK.INIT
    if description not in _models:
        # A cascade reads a flag of its own while it is built, which has no value on "meta".
        cascade = cfg.MODEL.ROI_HEADS.NAME == "SwitchedCascadeROIHeads"
        cfg.MODEL.DEVICE = "cpu" if cascade else device
        with torch.device(cfg.MODEL.DEVICE):
            _models[description] = build_model(cfg).to(device)
    return _models[description]


def count(parameters) -> int:
    return sum(parameter.numel() for parameter in parameters)


def frozen(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def weights_of(model: nn.Module) -> list[str]:
    return [name for name, _ in model.named_parameters()]


def stage_of(name: str) -> str | None:
    """ "res2" of backbone.bottom_up.res2.0.conv1.weight, "conv1" of a VGG's; None outside of the body."""
    match = re.match(r"backbone\.(?:bottom_up\.)?(stem|res\d|conv\d)(?=[._])", name)
    return match and match[1]


def header(path: Path) -> str:
    """The comment lines that the file begins with."""
    lines = path.read_text().splitlines()
    end = next(index for index, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(lines[:end])


def expected_line(path: Path) -> str:
    return re.search(r"^# Expected: (.*)$", header(path), re.MULTILINE)[1]


def length(path: Path) -> str:
    """ "6x" of scratch_6x.yaml."""
    return path.stem.rpartition("_")[2]


def test_the_files_are_found():
    names = {path.stem for path in ALL}
    assert names >= {f"scratch_{n}" for n in LENGTHS}
    assert names >= {f"finetune_{n}" for n in LENGTHS if n != "9x"}
    assert names >= {f"{arm}_{n}" for arm in ("scratch", "finetune") for n in ("35k", "10k", "3500", "1k")}
    assert len(OURS) >= 80
    assert {path.stem for path in OVERLAYS} >= {"d2_defaults", "protocol_paper", "norm_gn", "init_random"}


class TestEveryConfig:
    @every_config
    def test_parameters(self, path):
        """Loads, resolves, validates, builds, and has the parameters of the golden file."""
        model = build(load(path))
        golden = json.loads(GOLDEN.read_text())[str(path.relative_to(CONFIGS))]
        trainable = count(parameter for parameter in model.parameters() if parameter.requires_grad)
        assert count(model.parameters()) == golden["total"]
        assert trainable == golden["trainable"]

    def test_no_stale_counts(self):
        assert json.loads(GOLDEN.read_text()).keys() == {str(path.relative_to(CONFIGS)) for path in ALL}

    @every_config
    def test_frozen_exactly_where_weights_are_loaded(self, path):
        cfg = load(path)
        names = frozen(build(cfg))
        if cfg.MODEL.WEIGHTS and "toy" not in path.parts:  # there, twins differ in weights alone
            assert cfg.MODEL.BACKBONE.FREEZE_AT == 2
            stages = {"conv1", "conv2"} if "VGG" in path.stem else {"stem", "res2"}
            assert {stage_of(name) for name in names} == stages
            assert all(name in names for name in weights_of(build(cfg)) if stage_of(name) in stages)
        else:
            assert names == []

    @every_config
    def test_resolved(self, path):
        """The schedule is the one knob, and the dumped config is as good as the file."""
        cfg = load(path)
        assert cfg.RETHINK.SCHEDULE
        assert max(cfg.SOLVER.STEPS) < cfg.SOLVER.MAX_ITER
        assert yaml.safe_load(cfg.dump())["SOLVER"]["MAX_ITER"] == cfg.SOLVER.MAX_ITER

    @every_config
    def test_header(self, path):
        """What it is, and the command that runs this very file."""
        text = header(path)
        command = re.search(r"^# Run: python (\S+) --config-file (\S+)( .*)?$", text, re.MULTILINE)
        assert command, "no line `# Run: python tools/... --config-file ...` at the top"
        assert (ROOT / command[1]).is_file()
        assert ROOT / command[2] == path

    @every_real_config
    def test_header_is_complete(self, path):
        """What is expected, what it costs, what came out here."""
        for line in ("Expected", "Cost", "Ours"):
            assert re.search(rf"^# {line}: \S.*\.$", header(path), re.MULTILINE), line


class TestOverlays:
    @pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
    def test_no_base(self, path):
        """One with a _BASE_ of its own would undo the overlays before it."""
        assert "_BASE_" not in yaml.safe_load(path.read_text())

    @pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
    def test_over_a_config(self, path):
        load_config(CONFIGS / "scratch_3x.yaml", [path.stem])

    @pytest.mark.parametrize("path", OVERLAYS, ids=lambda path: path.stem)
    def test_says_what_it_is(self, path):
        assert path.read_text().startswith("# ")


class TestPaperConfigs:
    @every_real_config
    def test_states_only_what_differs(self, path):
        lines = [
            line for line in path.read_text().splitlines() if not line.startswith(("#", "  - ", "_BASE_"))
        ]
        assert 2 <= len(lines) <= 9

    @every_length
    def test_schedule(self, path):
        cfg = load(path)
        scale = cfg.SOLVER.IMS_PER_BATCH // 16
        found = (cfg.SOLVER.MAX_ITER * scale, tuple(step * scale for step in cfg.SOLVER.STEPS))
        assert found == PAPER_SCHEDULES[length(path)]
        assert pytest.approx(0.01 if "retinanet" in path.stem else 0.02) == cfg.SOLVER.BASE_LR / scale
        assert cfg.SOLVER.GAMMA == 0.1

    @every_length
    def test_header_tells_the_schedule(self, path):
        thousands = PAPER_SCHEDULES[length(path)][0] // 1000
        assert f"{length(path)}: {thousands}k iterations of 16 images" in header(path)

    @pytest.mark.parametrize("arm", BOX_AP)
    @pytest.mark.parametrize("times", range(2, 7))
    def test_header_tells_table_1(self, arm, times):
        value = BOX_AP[arm][times - 2]
        line = expected_line(CONFIGS / f"{arm}_{times}x.yaml")
        assert re.match(rf"box AP {value}\b.*\(paper, table 1\b", line)

    @pytest.mark.parametrize("path", TABLE_1, ids=lambda path: path.stem)
    def test_header_tells_mask_ap(self, path):
        """The paper's or Detectron's, and that of results/paper.json; none where neither reports one."""
        name = path.relative_to(CONFIGS).as_posix()
        rows = json.loads((ROOT / "results" / "paper.json").read_text())["numbers"]
        reported = {
            row["metrics"]["mask AP"]
            for row in rows
            if row.get("config") == name and "mask AP" in row["metrics"]
            if re.match(r"table|figure|Detectron$", row["experiment"])
        }
        paper_or_detectron = re.sub(r"(MMDetection|tensorpack|maskrcnn-|GN paper).*", "", expected_line(path))
        found = {float(value) for value in re.findall(r"mask AP ([\d.]+\d)", paper_or_detectron)}
        mine = MASK_AP.get(name.removesuffix(".yaml"))
        assert found == reported == (set() if mine is None else {mine})

    @pytest.mark.parametrize("path", [*BY_ROOT, *TABLE_1_R101], ids=lambda p: p.stem)
    def test_header_tells_the_cost(self, path):
        """Hours from the seconds per iteration that Detectron's model zoo gives, at 2x or else at 3x."""
        hours, seconds = re.search(
            r"about (\d+) h on 8 P100 at Detectron's ([\d.]+) s", header(path)
        ).groups()
        assert float(seconds) == SECONDS.get(path.stem, SECONDS[path.stem.rpartition("_")[0]])
        assert abs(int(hours) - PAPER_SCHEDULES[length(path)][0] * float(seconds) / 3600) <= 0.51

    @pytest.mark.parametrize("arm", ["scratch", "finetune"])
    def test_small_data(self, arm):
        """The recipe of 35k images; figure 7 for 10k."""
        tuned, few = (load(CONFIGS / f"{arm}_{name}.yaml") for name in ("35k", "10k"))
        for cfg in (tuned, few):
            assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.GAMMA) == (0.04, 0.02)
            assert (min(cfg.INPUT.MIN_SIZE_TRAIN), max(cfg.INPUT.MIN_SIZE_TRAIN)) == (512, 800)
        assert tuned.SOLVER.STEPS == (480_000, 520_000)
        total = {"scratch": 220_000, "finetune": 60_000}[arm]
        assert total == few.SOLVER.MAX_ITER
        assert (total - 20_000,) == few.SOLVER.STEPS
        assert few.DATASETS.TRAIN == ("coco_2017_train@10k",)

    def test_scratch_6x(self):
        cfg = load(CONFIGS / "scratch_6x.yaml")
        assert cfg.SOLVER.MAX_ITER == 540_000
        assert cfg.SOLVER.STEPS == (480_000, 520_000)
        assert cfg.SOLVER.BASE_LR == 0.02
        assert cfg.SOLVER.WARMUP_ITERS == 500
        assert cfg.MODEL.WEIGHTS == ""
        assert cfg.MODEL.BACKBONE.FREEZE_AT == 0
        assert cfg.DATASETS.TRAIN == ("coco_2017_train",)
        assert cfg.DATASETS.TEST == ("coco_2017_val",)


def conv(kernel: int, inputs: int, outputs: int, bias: bool = False) -> int:
    return kernel * kernel * inputs * outputs + (outputs if bias else 0)


def conv_gn(kernel: int, inputs: int, outputs: int) -> int:
    """Scale and bias of the GroupNorm are two numbers per channel."""
    return conv(kernel, inputs, outputs) + 2 * outputs


def linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def resnet_stage(blocks: int, inputs: int, width: int) -> int:
    """Bottlenecks of `width`, `width`, 4 x `width` channels; the first with a shortcut convolution."""
    total = conv_gn(1, inputs, 4 * width)
    for index in range(blocks):
        first = inputs if index == 0 else 4 * width
        total += conv_gn(1, first, width) + conv_gn(3, width, width) + conv_gn(1, width, 4 * width)
    return total


class TestParametersByHand:
    """Mask R-CNN R50-FPN GN, 4conv1fc, 80 classes, summed up layer by layer: 45.711 M."""

    PARTS = {
        "backbone.bottom_up.stem": conv_gn(7, 3, 64),
        "backbone.bottom_up.res2": resnet_stage(3, 64, 64),
        "backbone.bottom_up.res3": resnet_stage(4, 256, 128),
        "backbone.bottom_up.res4": resnet_stage(6, 512, 256),
        "backbone.bottom_up.res5": resnet_stage(3, 1024, 512),
        "backbone.fpn_lateral": sum(conv_gn(1, channels, 256) for channels in (256, 512, 1024, 2048)),
        "backbone.fpn_output": 4 * conv_gn(3, 256, 256),
        "proposal_generator.rpn_head": conv(3, 256, 256, bias=True)
        + conv(1, 256, 3, bias=True)
        + conv(1, 256, 3 * 4, bias=True),
        "roi_heads.box_head": 4 * conv_gn(3, 256, 256) + linear(256 * 7 * 7, 1024),
        "roi_heads.box_predictor": linear(1024, 80 + 1) + linear(1024, 80 * 4),
        "roi_heads.mask_head": 4 * conv_gn(3, 256, 256)
        + conv(2, 256, 256, bias=True)
        + conv(1, 256, 80, bias=True),
    }

    @pytest.mark.parametrize("part", PARTS)
    def test_part(self, part):
        model = build(load(CONFIGS / "scratch_6x.yaml"))
        found = count(p for name, p in model.named_parameters() if name.startswith(part))
        assert found == self.PARTS[part]

    def test_sum(self):
        total = sum(self.PARTS.values())
        assert total == 45_711_152
        assert count(build(load(CONFIGS / "scratch_6x.yaml")).parameters()) == total

    def test_frozen_in_the_twin(self):
        model = build(load(CONFIGS / "finetune_6x.yaml"))
        expected = self.PARTS["backbone.bottom_up.stem"] + self.PARTS["backbone.bottom_up.res2"]
        assert expected == 225_344
        assert count(p for p in model.parameters() if not p.requires_grad) == expected

    def test_weights_are_random(self):
        """A model without weights to load must not start at constants."""
        model = build(load(CONFIGS / "scratch_6x.yaml"), "cpu")
        weights = [module.weight for module in model.modules() if isinstance(module, nn.Conv2d)]
        assert all(torch.unique(weight[0]).numel() > 1 for weight in weights)
