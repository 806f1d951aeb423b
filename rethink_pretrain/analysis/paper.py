"""results/paper.json: what the paper and other implementations report, and which configs repeat it."""

import json
from collections import defaultdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import UserError

OTHER_SOURCES = ("Detectron", "Detectron2", "MMDetection", "tensorpack", "maskrcnn-benchmark", "GN paper")
_SHORT = ("box AP", "mask AP", "keypoint AP", "mAP")  # of a header; AP50 and AP75 stay in the file


class Number(NamedTuple):
    """Metrics of one row of a table, one bar or one point of a curve.

    `experiment` is "table1", "figure4", "text" and the like, or one of `OTHER_SOURCES`. `label` is
    "verified", "read off the figure" or "inferred". `config`, relative to configs/, repeats it
    where not "".
    """

    experiment: str
    row: str
    metrics: dict[str, float]
    label: str
    config: str = ""
    note: str = ""

    @property
    def from_paper(self) -> bool:
        """Whether the paper reports it, and not another implementation."""
        return self.experiment not in OTHER_SOURCES


class Experiment(NamedTuple):
    """A table, a figure or a claim of the text, and the configs that repeat it, relative to configs/."""

    id: str
    title: str
    configs: list[str]


class Seconds(NamedTuple):
    """Seconds per iteration of `batch` images on `hardware`; `configs` are patterns of those it holds for."""

    source: str
    hardware: str
    row: str
    batch: int
    seconds: float
    configs: list[str]


class Paper(NamedTuple):
    """All of the file."""

    numbers: list[Number]
    experiments: list[Experiment]
    seconds: list[Seconds]

    def numbers_of(self, config: str) -> list[Number]:
        """Of the paper first."""
        found = [number for number in self.numbers if number.config == config]
        return sorted(found, key=lambda number: not number.from_paper)

    def experiments_of(self, config: str) -> list[Experiment]:
        """In the order of the file."""
        return [experiment for experiment in self.experiments if config in experiment.configs]

    def seconds_of(self, config: str, hardware: str = "") -> Seconds | None:
        """What an iteration of `config` took who published it, on `hardware` or on any; None for nobody."""
        rows = (s for s in self.seconds if hardware in ("", s.hardware))
        return next((s for s in rows if any(fnmatchcase(config, p) for p in s.configs)), None)


def read_paper(path: str | Path) -> Paper:
    """Raises `UserError` where the file is not there or has another form."""
    try:
        content: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
        return Paper(
            [Number(**row) for row in content["numbers"]],
            [Experiment(**row) for row in content["experiments"]],
            [Seconds(**row) for row in content["seconds_per_iteration"]],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the file of reported numbers ({error!r}).") from None


def check_experiments(paper: Paper, folder: Path) -> list[str]:
    """A line for each experiment without a config, and for each listed config that `folder` does not have."""
    problems = []
    for experiment in paper.experiments:
        if not experiment.configs:
            problems.append(f"experiment {experiment.id} of the paper has no config")
        missing = [name for name in experiment.configs if not (folder / name).is_file()]
        problems += [f"{name}, listed for experiment {experiment.id}, does not exist" for name in missing]
    return problems


def experiment_name(identifier: str) -> str:
    """ "table 1" of "table1", "VGG-16" of "vgg"."""
    for kind in ("table", "figure"):
        if identifier.startswith(kind):
            return f"{kind} {identifier[len(kind) :]}"
    return {"vgg": "text, VGG-16", "voc": "text, PASCAL VOC"}.get(identifier, identifier)


def describe_expected(paper: Paper, config: str) -> str | None:
    """ "box AP 41.3, mask AP 36.6 (paper, table 1); MMDetection: box AP 41.2, ..."; None for nothing."""
    groups: dict[tuple[str, str], dict[str, float]] = defaultdict(dict)
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for number in paper.numbers_of(config):
        key = ("paper" if number.from_paper else number.experiment, number.label)
        groups[key] |= {name: number.metrics[name] for name in _SHORT if name in number.metrics}
        name = experiment_name(number.experiment)
        if number.from_paper and name not in places[key]:
            places[key].append(name)
    parts = []
    for (source, label), metrics in groups.items():
        about = "" if label == "verified" else "about "
        values = ", ".join(f"{name} {about}{value}" for name, value in metrics.items())
        where = ", ".join(places[source, label]) + ("" if label == "verified" else f", {label}")
        parts.append(f"{values} (paper, {where})" if source == "paper" else f"{source}: {values}")
    return "; ".join(parts) + "." if parts else None


def describe_cost(paper: Paper, config: str, iterations: float) -> str:
    """ "about 163 h on 8 P100 at Detectron's 1.087 s per iteration."; `iterations` have 16 images."""
    seconds = paper.seconds_of(config)
    if seconds is None:
        return "not published for this model."
    hours = iterations * 16 / seconds.batch * seconds.seconds / 3600
    rate = f"{seconds.source}'s {seconds.seconds} s per iteration"
    return f"about {hours:.0f} h on {seconds.hardware} at {rate}."
