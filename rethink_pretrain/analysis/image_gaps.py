"""Gaps between single runs, by a bootstrap over the validation images that both were evaluated on."""

from collections.abc import Callable
from pathlib import Path

from .bootstrap import TASKS, Matches, average_precision, match, paired_bootstrap
from .comparison import LeftOut, last_value
from .runs import RunData
from .statistics import Interval

RESULTS = Path("inference", "coco_instances_results.json")  # in the folder of a run, of its last evaluation
_ROUNDING = 0.05  # percent points; of results that are rounded to less digits than the evaluation had


class ImageGaps:
    """A `comparison.Bootstrap` from the results in the folders of runs.

    `find_annotations` gives the COCO json that a run was evaluated on, None where it is not known. Where an
    interval cannot be had, `left_out` says why.
    """

    def __init__(
        self,
        find_annotations: Callable[[RunData], Path | None],
        metric: str,
        confidence: float,
        announce: Callable[[], None] = lambda: None,
    ):
        """`announce` is called after each gap, which may take a minute."""
        self.left_out: list[LeftOut] = []
        self._find_annotations = find_annotations
        self._metric = metric
        self._confidence = confidence
        self._announce = announce
        self._matches: dict[str, Matches | None] = {}

    def __call__(self, run: RunData, reference: RunData) -> Interval | None:
        """The interval of `run` minus `reference`, None where it cannot be had."""
        matches, of_reference = self._match(run), self._match(reference)
        if matches is None or of_reference is None:
            return None
        ret = paired_bootstrap(matches, of_reference, confidence=self._confidence)
        self._announce()
        return ret

    def _match(self, run: RunData) -> Matches | None:
        if run.name not in self._matches:
            found = self._read(run)
            if isinstance(found, str):
                self.left_out.append(LeftOut(run.name, f"no interval over images: {found}"))
            self._matches[run.name] = None if isinstance(found, str) else found
        return self._matches[run.name]

    def _read(self, run: RunData) -> Matches | str:
        """The matches, or why there are none."""
        task, _, name = self._metric.rpartition("/")
        if name != "AP" or task not in TASKS:
            return f"{self._metric} is no AP of COCO's"
        if run.folder is None or not (run.folder / RESULTS).is_file():
            return f"its folder has no {RESULTS}"
        annotations = self._find_annotations(run)
        if annotations is None:
            return "the json of its test set is not at hand (--annotations FILE)"
        matches = match(annotations, run.folder / RESULTS, task)
        _, value = last_value(run, self._metric)
        if abs(average_precision(matches) - value) > _ROUNDING:
            return f"the results in its folder have {average_precision(matches):.2f}, its metrics {value:.2f}"
        return matches
