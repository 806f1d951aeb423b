"""The sets that the paper trained from both kinds of weights, as a scale to place another set on."""

from pathlib import Path
from typing import NamedTuple

import yaml

from ..plain_yaml import read_plain_yaml
from .figure_2 import COCO_IMAGES, COCO_INSTANCES
from .paper import Paper

MARGIN = (
    0.4  # AP below which two ends count as equal; ours: the paper reports one run of each, without spread
)

_COCO = (COCO_INSTANCES / COCO_IMAGES, 80)  # objects per image, categories
_VOC = (2.3, 20)  # as the paper counts them


class Arm(NamedTuple):
    """A training of the paper: a config of ours that repeats it, its length, and what it reached in `metric`.

    drops: RETHINK.DROPS of the config, iterations of 16 images before the end; () is the paper's rule.
    """

    config: str
    schedule: str
    drops: tuple[float, ...]
    metric: str
    value: float


class Row(NamedTuple):
    """One set, and what both arms reached on it.

    objects: per image. place: where the paper says so. needs: what random weights take to get there.
    enough: a shorter fine-tuning that ends within the margin; the pre-trained arm itself where none is known.
    unpublished: what of the recipe the paper does not tell.
    """

    name: str
    images: int
    objects: float
    categories: int
    random: Arm
    pretrained: Arm
    enough: Arm
    place: str
    needs: str
    note: str
    unpublished: str

    @property
    def gap(self) -> float:
        """Random minus pre-trained, in points."""
        return round(self.random.value - self.pretrained.value, 1)

    @property
    def equal(self) -> bool:
        """Whether random weights end no worse than pre-trained ones, by the margin."""
        return self.gap >= -MARGIN


# Images, (objects per image, categories), config, place and the words of a row. {...} is a row of
# results/paper.json, whose number stands there in the end.
_SETS = {
    "118k": (COCO_IMAGES, _COCO, "{}_6x.yaml", "table 1"),
    "35k": (35_000, _COCO, "{}_35k.yaml", "figure 7"),
    "10k": (10_000, _COCO, "{}_10k.yaml", "figure 7"),
    "3.5k": (3_500, _COCO, "{}_3500.yaml", "text of section 5"),
    "1k": (1_000, _COCO, "{}_1k.yaml", "text of section 5 and figure 8"),
    "VOC": (15_000, _VOC, "paper/{}_VOC_R101_gn_{}.yaml", "text of section 5"),
}
_VOC_LENGTHS = {"scratch": "144k", "finetune": "18k"}
_ENOUGH = {
    "118k": ("finetune_3x.yaml", "3x", "R50 pre-train 3x"),
    "35k": ("finetune_35k.yaml", "2x", "35k tuned, pre-train 2x"),
}
_NEEDS = {
    "118k": "5x or more",
    "35k": "more than 3x (6x here), where pre-trained ones take 2x",
    "10k": "220k iterations, where pre-trained ones take 60k",
}
_NOTES = {
    "118k": "Random weights catch up late: {R50 random 2x} against {R50 pre-train 2x} at 2x, {R50 random 4x} "
    "against {R50 pre-train 4x} at 4x, {R50 random 5x} against {R50 pre-train 5x} at 5x.",
    "35k": "Pre-trained weights reach {35k tuned, pre-train 2x} at 2x; random ones about "
    "{35k tuned, random 2x} at 2x and about {35k tuned, random 3x} at 3x.",
    "10k": "After 60k iterations random weights are at about {10k, random 60k iterations}. Pre-trained ones "
    "do not gain by more: about {10k, pre-train 220k iterations} after 220k.",
    "3.5k": "The number of pre-trained weights is their best over training.",
    "1k": "Settings searched for random weights raise them to "
    "{1k, random, hyper-parameters searched for random}, no further. Figure 8 prints "
    "{1k, random, in the figure's caption} for what the text calls {1k, random}.",
    "VOC": "Random weights took 144k iterations, pre-trained ones 18k; more did not help.",
}
_SEARCHED = "learning rate, its decay and jitter of this set (ours are those of 35k)"
_UNPUBLISHED = {
    "10k": _SEARCHED,
    "3.5k": f"schedule, {_SEARCHED}",
    "1k": f"schedule, {_SEARCHED}",
    "VOC": "learning rate, drops and scales of VOC (ours are COCO's)",
}


def read_evidence(paper: Paper, configs: Path) -> list[Row]:
    """All rows, COCO's from the largest to the smallest, then VOC. `configs` is the folder of ours."""
    values = {number.row: next(iter(number.metrics.values())) for number in paper.numbers}
    return [_read_row(name, paper, configs, values) for name in _SETS]


def _read_row(name: str, paper: Paper, configs: Path, values: dict[str, float]) -> Row:
    images, (objects, categories), config, place = _SETS[name]
    random, pretrained = (
        _read_arm(config.format(arm, _VOC_LENGTHS[arm]), paper, configs) for arm in ("scratch", "finetune")
    )
    enough = pretrained
    if name in _ENOUGH:
        config, schedule, row = _ENOUGH[name]
        enough = pretrained._replace(config=config, schedule=schedule, value=values[row])
    return Row(
        *(name, images, objects, categories, random, pretrained, enough, place),
        needs=_NEEDS.get(name, ""),
        note=_NOTES[name].format_map(values),
        unpublished=_UNPUBLISHED.get(name, ""),
    )


def _read_arm(config: str, paper: Paper, configs: Path) -> Arm:
    rethink = yaml.safe_load(read_plain_yaml(str(configs / config)))["RETHINK"]
    number = paper.numbers_of(config)[0]
    metric, value = next(iter(number.metrics.items()))
    return Arm(config, rethink["SCHEDULE"], tuple(rethink.get("DROPS", ())), metric, value)
