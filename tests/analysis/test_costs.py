"""What trainings cost, against products done by hand."""

import pytest
from conftest import REPOSITORY

from rethink_pretrain.analysis.costs import Cost, cost_of, relatives, total
from rethink_pretrain.analysis.paper import Paper, Seconds, read_paper

R101 = "paper/scratch_R101_gn_trainaug_9x.yaml"
GFLOPS = {
    "scratch_6x.yaml": 600,
    "finetune_6x.yaml": 600,
    "paper/scratch_R101_gn_6x.yaml": 800,
    R101: 800,
    "scratch_10k.yaml": 600,
    "extra/scratch_x.yaml": 300,
}


@pytest.fixture(scope="module")
def paper() -> Paper:
    return read_paper(REPOSITORY / "results" / "paper.json")


@pytest.mark.parametrize(
    ("config", "iterations", "hardware", "seconds", "published"),
    [
        ("scratch_6x.yaml", 540_000, "8 P100", 1.087, True),
        ("scratch_6x.yaml", 540_000, "8 V100", 0.338, True),
        ("finetune_6x.yaml", 540_000, "8 V100", 0.309, True),
        ("scratch_10k.yaml", 220_000, "8 P100", 1.087, False),
        ("extra/scratch_x.yaml", 540_000, "8 V100", 0.338 / 2, False),
        # R101's own seconds where they are published, else R50's by 800 / 600 GFLOPs.
        (R101, 810_000, "8 P100", 1.243, False),
        (R101, 810_000, "8 V100", 0.338 * 4 / 3, False),
    ],
)
def test_cost(paper, config, iterations, hardware, seconds, published):
    hours = iterations * seconds / 3600
    cost = cost_of(paper, GFLOPS, config, iterations, hardware)
    assert cost == (pytest.approx(hours), pytest.approx(hours if published else 0))
    assert cost.gpu_hours == pytest.approx(8 * hours)


def test_another_batch():
    """64 images in 2 s are 16 in half a second: 7,200 times that is an hour."""
    paper = Paper([], [], [Seconds("s", "8 V100", "", 64, 2.0, ["scratch_6x.yaml"])])
    assert cost_of(paper, GFLOPS, "scratch_6x.yaml", 7200, "8 V100").hours == pytest.approx(1)


def test_unknown_hardware(paper):
    with pytest.raises(ValueError, match="on 8 H100"):
        cost_of(paper, GFLOPS, "scratch_6x.yaml", 1, "8 H100")


def test_headers_keep_the_first_source(paper):
    """Both have seconds of scratch_6x; a config's header tells Detectron's, whose protocol it follows."""
    assert paper.seconds_of("scratch_6x.yaml").source == "Detectron"
    assert paper.seconds_of("scratch_6x.yaml", "8 V100").source == "Detectron2"
    assert paper.seconds_of("scratch_6x.yaml", "8 H100") is None


def test_relatives():
    assert relatives("paper/finetune_X152_gn_trainaug_6x.yaml") == [
        "paper/finetune_R101_gn_6x.yaml",
        "finetune_6x.yaml",
    ]
    assert relatives("scratch_10k.yaml") == ["scratch_6x.yaml"]


def test_total():
    assert total([Cost(1, 1), Cost(2, 0)]) == (3, 1)
