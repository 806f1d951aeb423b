"""Problems by kind: how many, and the first few of each."""

import textwrap
from collections import Counter
from typing import Any

from ..quote import quoted
from .kinds import KINDS, severity

MAX_EXAMPLES = 5  # of each kind
_WIDTH = 80  # columns
_LONGEST = 100  # characters of a file name or a reason


class Report:
    """A count and examples for each kind of problem that was found."""

    def __init__(self) -> None:
        self.counts: Counter = Counter()
        self.examples: dict[str, list[dict[str, Any]]] = {}

    def add(self, kind: str, count: int = 1, **example: Any) -> None:
        """One more problem of a kind of `KINDS`; `example`: image_id, annotation_id, file, value and such."""
        self.counts[kind] += count
        examples = self.examples.setdefault(kind, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append({key: _shorten(value) for key, value in example.items()})

    @property
    def num_errors(self) -> int:
        """Problems that are refused, or hurt training or evaluation."""
        return sum(count for kind, count in self.counts.items() if severity(kind) == "error")

    @property
    def num_warnings(self) -> int:
        """Problems that can be trained on."""
        return self.counts.total() - self.num_errors

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        problems = {
            kind: {
                "severity": severity(kind),
                "count": self.counts[kind],
                "meaning": KINDS[kind],
                "examples": self.examples[kind],
            }
            for kind in self._kinds()
        }
        return {"errors": self.num_errors, "warnings": self.num_warnings, "problems": problems}

    def as_text(self) -> str:
        """A table of 80 columns, errors first, the examples below each kind; "" for no problem."""
        return "\n".join(line for kind in self._kinds() for line in self._rows(kind))

    def _kinds(self) -> list[str]:
        return [kind for kind in KINDS if self.counts[kind]]

    def _rows(self, kind: str) -> list[str]:
        title = f"{severity(kind):7}  {self.counts[kind]:>7}  {kind}: "
        indent = " " * 18
        rows = textwrap.wrap(title + KINDS[kind], _WIDTH, subsequent_indent=indent)
        for example in self.examples[kind]:
            rows += textwrap.wrap(describe(example), _WIDTH, initial_indent=indent, subsequent_indent=indent)
        return rows


def describe(example: dict[str, Any]) -> str:
    """ "image 7, annotation 12, bbox [1, 2, 0, 4]" """
    names = {
        key: "" if key == "value" else f"{key.removesuffix('_id').replace('_', ' ')} " for key in example
    }
    return ", ".join(f"{names[key]}{value}" for key, value in example.items())


def _shorten(value: Any) -> Any:
    """Numbers and short words as they are; of anything else what fits on a line of any terminal."""
    plain = type(value) is int or (isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST)
    return value if plain else quoted(value)
