"""A model split over two processes is the model of one: outputs, gradients, statistics, a step, evaluation.

Each process gets a part of the images or RoIs, one of them sometimes none, and DistributedDataParallel
averages the gradients as in a run. The reference is one process with the whole batch and, for SyncBN,
torch's BatchNorm2d.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from conftest import TOY_CONFIG
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from detectron2.modeling.roi_heads import build_box_head, build_keypoint_head, build_mask_head
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import run_on_two_ranks

from rethink_pretrain.config import load_config

# Our norm -> the one of the reference, which knows nothing of processes.
REFERENCE = {"SyncBN": "BN", "GN": "GN"}
NORMS_OF_PARTS = ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD", "ROI_KEYPOINT_HEAD")
LEARNING_RATE = 1e-4


class Layers(nn.Module):
    """A mask or keypoint head without its loss: RoI features in, maps out."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head.layers(x)


class Part(NamedTuple):
    """A part of the model, and the size of one of its inputs: an image or an RoI's features."""

    build: Callable[[CfgNode], nn.Module]
    size: tuple[int, int, int]


def roi_shape(side: int) -> ShapeSpec:
    return ShapeSpec(channels=32, height=side, width=side)


PARTS = {
    "backbone": Part(build_backbone, (3, 128, 160)),
    "box head": Part(lambda cfg: build_box_head(cfg, roi_shape(7)), (32, 7, 7)),
    "mask head": Part(lambda cfg: Layers(build_mask_head(cfg, roi_shape(14))), (32, 14, 14)),
    "keypoint head": Part(lambda cfg: Layers(build_keypoint_head(cfg, roi_shape(14))), (32, 14, 14)),
}
# How many images or RoIs each of the two processes holds.
CASES = [
    (part, norm, counts)
    for part in PARTS
    for norm in REFERENCE
    for counts in ([(1, 1)] if part == "backbone" else [(3, 3), (2, 5), (4, 0), (0, 4)])
]


def build(part: str, norm: str) -> nn.Module:
    """The same weights on every call, scales and biases of the norms away from 1 and 0."""
    opts = [
        *("MODEL.RESNETS.STEM_OUT_CHANNELS", "32", "MODEL.RESNETS.RES2_OUT_CHANNELS", "32"),
        *("MODEL.FPN.OUT_CHANNELS", "32", "MODEL.ROI_BOX_HEAD.NUM_CONV", "2"),
        *("MODEL.ROI_BOX_HEAD.CONV_DIM", "32", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"),
        *("MODEL.ROI_MASK_HEAD.NUM_CONV", "2", "MODEL.ROI_MASK_HEAD.CONV_DIM", "32"),
        *("MODEL.ROI_KEYPOINT_HEAD.NAME", "RethinkKeypointHead"),
        *("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "(32,32)", "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", "5"),
        *(word for node in NORMS_OF_PARTS for word in (f"MODEL.{node}.NORM", norm)),
    ]
    torch.manual_seed(0)
    model = PARTS[part].build(load_config(TOY_CONFIG, opts=opts))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm)):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.1)
    return model.double()  # what is left of the difference between the two is then no rounding of fp32


def draw(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def outputs_of(model: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    y = model(x)
    return y if isinstance(y, dict) else {"y": y}


def train_one_step(part: str, norm: str, counts: tuple[int, ...], rank: int | None = None) -> dict[str, dict]:
    """One step of SGD with what `rank` holds of the batch, or with all of it in this process alone.

    The loss is a sum, so one process has the sum of the gradients where several have the average.
    """
    total = sum(counts)
    mine = slice(None) if rank is None else slice(sum(counts[:rank]), sum(counts[: rank + 1]))
    module = build(part, norm)
    model = module if rank is None else DistributedDataParallel(module)
    x = draw((total, *PARTS[part].size), seed=1)[mine]
    outputs = outputs_of(model, x)
    # Every value has its own weight in the loss, so that no error hides behind a symmetry.
    weights = {name: draw((total, *y.shape[1:]), seed=2)[mine] for name, y in outputs.items()}
    loss = sum((y * weights[name]).sum() / y.shape[1:].numel() ** 0.5 for name, y in outputs.items())
    (loss * (1 if rank is None else len(counts))).backward()
    gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    torch.optim.SGD(module.parameters(), lr=LEARNING_RATE).step()
    with torch.no_grad():
        evaluated = outputs_of(module.eval(), x)
    return {
        "outputs": {name: y.detach() for name, y in outputs.items()},
        "gradients": gradients,
        "buffers": dict(module.named_buffers()),
        "evaluated": evaluated,
    }


def run_rank(rank: int) -> dict[str, dict]:
    return {str(case): train_one_step(*case, rank) for case in CASES}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[str, dict]]:
    return run_on_two_ranks(run_rank, tmp_path_factory.mktemp("across_ranks"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_two_processes_are_one(ranks, case):
    part, norm, counts = case
    expected = train_one_step(part, REFERENCE[norm], counts)
    results = [result[str(case)] for result in ranks]
    for kind in ("outputs", "evaluated"):
        joined = {name: torch.cat([result[kind][name] for result in results]) for name in expected[kind]}
        assert_close(joined, expected[kind])
    for kind in ("gradients", "buffers"):
        for result in results:
            assert_close(result[kind], expected[kind])


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Within 1e-9 of each value, or of the largest of its tensor: sums in another order round differently."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        scale = tensor.abs().max().item()
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-9 * scale, msg=f"{name} differs")
