"""What every check of the doctor gets, and what it gives back."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from detectron2.config import CfgNode
from torch import nn

STOP = "stop"  # training would be wrong without any error message
WARN = "warn"  # training may be what the user wants, but the paper or the host advises against it


class Finding(NamedTuple):
    """One thing that is wrong, in full sentences."""

    severity: str  # STOP or WARN
    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.what} Fix: {self.fix}"


@dataclass(frozen=True)
class Patient:
    """A model that is about to train, and what is known about its weights and its run."""

    cfg: CfgNode
    model: nn.Module
    coverage: float | None  # of the weight file; see RETHINK.MIN_COVERAGE
    missing: frozenset[str] | None  # names that the weight file did not fill; None where none was loaded
    processes: int
    output_dir: Path | None  # None where it is not a folder of this machine
    num_images: int | None  # of the training set; None where unknown

    @property
    def weights_pending(self) -> bool:
        """Whether weights are configured but not loaded, so that the tensors tell nothing yet."""
        return bool(self.cfg.MODEL.WEIGHTS) and self.missing is None

    def random_parameters(self) -> frozenset[str]:
        """Names of the parameters that hold random values, as far as is known."""
        names = frozenset(name for name, _ in self.model.named_parameters())
        if self.weights_pending:
            return frozenset()
        return names if self.missing is None else names & self.missing


def join_names(names: Iterable[str], limit: int = 3) -> str:
    """ "a, b, c and 4 more"."""
    names = list(names)
    rest = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {rest} more" if rest > 0 else "")
