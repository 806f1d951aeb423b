"""Killing toy runs at random moments, and what comes of them; the cost of being able to survive it."""

from .contestants import ours, stock, write_data
from .cost import measure_cost
from .summary import all_survived, summarize
from .trials import make_reference, run_trial

__all__ = [
    "all_survived",
    "make_reference",
    "measure_cost",
    "ours",
    "run_trial",
    "stock",
    "summarize",
    "write_data",
]
