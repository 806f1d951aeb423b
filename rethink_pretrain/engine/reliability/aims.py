"""Moments to kill a run at: any, or inside a save or an evaluation."""

import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from . import evidence
from .victim import Victim

PLACES = ("any", "save", "evaluation")
_LONGEST_SAVE, _LONGEST_EVALUATION = 0.05, 0.5  # seconds that a toy run spends there, about
_LOOK = 0.0005  # seconds between two looks at a folder


class Aim(NamedTuple):
    """`after` seconds behind the start of training ("any"), or of its `number`-th save or evaluation."""

    place: str
    after: float
    number: int = 1


def draw_aim(rng: random.Random, place: str, seconds: float) -> Aim:
    """At a `place` of a run that trains for about `seconds`."""
    if place == "any":
        return Aim(place, rng.uniform(0, seconds))
    if place == "save":
        return Aim(place, rng.uniform(0, _LONGEST_SAVE), rng.randint(1, 6))
    return Aim(place, rng.uniform(0, _LONGEST_EVALUATION), rng.randint(1, 3))


def strike(victim: Victim, folder: Path, aim: Aim) -> float | None:
    """Kill `victim`, which trains in `folder`, at that moment: seconds since its training started.

    None where it has ended before.
    """
    log_before = len(evidence.log_of(folder))

    def count(pattern: re.Pattern) -> int:
        return len(pattern.findall(evidence.log_of(folder)[log_before:]))

    reached = {
        "any": lambda: True,
        "save": _Saves(folder, aim.number),
        "evaluation": lambda: count(evidence.EVALUATES) >= aim.number,
    }
    if not _wait(victim, lambda: count(evidence.STARTED)):
        return None
    started = time.monotonic()
    if not _wait(victim, reached[aim.place]):
        return None
    end = time.monotonic() + aim.after
    if not _wait(victim, lambda: time.monotonic() >= end):
        return None
    victim.kill()
    return time.monotonic() - started


class _Saves:
    """Whether the `number`-th save has begun: each makes a file that is new, under its name or another."""

    def __init__(self, folder: Path, number: int):
        self._folder, self._known, self._number = folder, _writings(folder), number

    def __call__(self) -> bool:
        new = _writings(self._folder) - self._known
        self._known |= new
        self._number -= len(new)
        return self._number <= 0


def _writings(folder: Path) -> set[tuple[str, int]]:
    """Checkpoints and their temporary files, each time they are made anew."""
    found = set()
    for path in (*folder.glob("model_*.pth"), *folder.glob("model_*.pth.tmp")):
        try:
            found.add((path.name.removesuffix(".tmp"), path.stat().st_ino))
        except FileNotFoundError:
            continue
    return found


def _wait(victim: Victim, what: Callable[[], object]) -> bool:
    while not what():
        if not victim.alive:
            return False
        time.sleep(_LOOK)
    return True
