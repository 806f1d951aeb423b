"""Contestants by turns on the clock, and what is kept of it: medians, quartiles, ratios."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

STOCK = "stock"


def time_by_turns(
    contestants: Mapping[str, Callable[[], Any]], rounds: int, warm_up: int = 1
) -> dict[str, list[float]]:
    """Seconds of each call, see `by_turns`."""
    return by_turns({name: partial(_seconds_of, call) for name, call in contestants.items()}, rounds, warm_up)


def _seconds_of(call: Callable[[], Any]) -> float:
    gc.collect()  # of what the one before left
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def by_turns(
    contestants: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 1, budget: float = math.inf
) -> dict[str, list[float]]:
    """What each call returns: name -> `rounds` values, after `warm_up` calls that do not count.

    In every round all are called once, in an order that turns around from round to round, so that what else
    the machine does falls on all of them. After `budget` seconds the rounds that there are have to do.
    """
    start = time.perf_counter()
    values: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(-warm_up, rounds):
        for name in list(contestants)[:: 1 if number % 2 else -1]:
            value = contestants[name]()
            if number >= 0:
                values[name].append(value)
        if number >= 0 and time.perf_counter() - start > budget:
            break
    return values


def quartiles(values: Sequence[float]) -> list[float]:
    """The first and the third, linear between values; of a single value itself."""
    if len(values) == 1:
        return [values[0]] * 2
    return statistics.quantiles(values, n=4, method="inclusive")[::2]


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Median, quartiles and the values themselves."""
    return {"median": statistics.median(values), "quartiles": quartiles(values), "values": list(values)}


def speed_row(
    what: str,
    seconds: Mapping[str, Sequence[float]],
    *,
    work: float = 1.0,
    unit: str = "1",
    bars: Mapping[str, float] | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """What each contestant needs for `work` units, and how many times faster than stock it is.

    A ratio is the median over the rounds of stock's seconds / those of the contestant in the same round.
    `bars`: contestant -> the ratio that it is to reach. `facts` are kept as they are.
    """
    row = {
        "what": what,
        "unit": unit,
        "work": work,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "per_second": {name: work / statistics.median(values) for name, values in seconds.items()},
        "ratios": {},
        "bars": dict(bars or {}),
        **facts,
    }
    for name, values in seconds.items():
        if name != STOCK and STOCK in seconds:
            row["ratios"][name] = spread([a / b for a, b in zip(seconds[STOCK], values, strict=True)])
    return row


def limit_row(
    what: str,
    unit: str,
    values: Mapping[str, Sequence[float]],
    limits: Mapping[str, float],
    **facts: Any,
) -> dict[str, Any]:
    """A quantity of each contestant, in `unit`. `limits`: contestant -> what it is to be at most."""
    found = {name: spread(numbers) for name, numbers in values.items()}
    return {"what": what, "unit": unit, "values": found, "limits": dict(limits), **facts}


def unmeasured_row(what: str, reason: str) -> dict[str, Any]:
    """In the place of a row that this machine cannot give."""
    return {"what": what, "not_measured": reason}
