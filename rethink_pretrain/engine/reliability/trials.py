"""A run without interruption, and runs that are killed and resumed until they come to their end."""

import random
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from . import evidence
from .aims import PLACES, Aim, draw_aim, strike
from .contestants import Contestant
from .victim import Victim

IDENTICAL, DIFFERS, NO_RESUME, STARTED_OVER = "identical", "differs", "could not resume", "started over"
OUTCOMES = (IDENTICAL, DIFFERS, STARTED_OVER, NO_RESUME)
_TIMEOUT = 300  # seconds for a run of some
_MOST_KILLS = 3  # in one trial
_ATTEMPTS = 10  # to kill a run before its end


class Reference(NamedTuple):
    """What an undisturbed run came to, its seconds of training, and whether another came to the same."""

    weights: dict[str, torch.Tensor]
    rows: list[dict[str, Any]]
    seconds: float
    repeatable: bool


def make_reference(contestant: Contestant, folder: Path) -> Reference:
    """Run it twice, in new folders inside `folder`. Raises `RuntimeError` where it fails."""
    weights, rows, seconds = _run_undisturbed(contestant, folder / "reference")
    again, *_ = _run_undisturbed(contestant, folder / "again")
    return Reference(weights, rows, seconds, evidence.same_weights(again, weights))


def _run_undisturbed(contestant: Contestant, folder: Path) -> tuple[dict, list, float]:
    victim = _start(contestant, folder, resume=False)
    while victim.alive and not evidence.STARTED.search(evidence.log_of(folder)):
        time.sleep(0.01)
    started = time.monotonic()
    status = victim.wait(_TIMEOUT)
    seconds = time.monotonic() - started
    weights = evidence.final_weights(folder)
    if status or weights is None:
        raise RuntimeError(f"The undisturbed run of {contestant.name} failed: {_last_words(folder)}")
    return weights, evidence.metrics(folder), seconds


def run_trial(
    contestant: Contestant, reference: Reference, number: int, seed: int, folder: Path
) -> dict[str, Any]:
    """Trial `number`: a run in `folder`, killed at moments drawn from (`seed`, `number`), resumed to its end.

    Every contestant gets the same draws. Tells each session and what came of them.
    """
    rng = random.Random(f"{seed} {number}")
    kills = rng.randint(1, _MOST_KILLS)
    aims = [draw_aim(rng, PLACES[number % len(PLACES)], reference.seconds)]
    aims += [draw_aim(rng, rng.choice(PLACES), reference.seconds) for _ in range(kills - 1)]
    sessions = [_killed_start(contestant, folder, aims[0], rng, reference.seconds)]
    for aim in (*aims[1:], None):
        if "status" in sessions[-1]:  # it has come to its end
            break
        sessions.append(_run_session(contestant, folder, aim))
    return {"trial": number, **_judge(reference, folder, sessions), "sessions": sessions}


def _killed_start(
    contestant: Contestant, folder: Path, aim: Aim, rng: random.Random, seconds: float
) -> dict[str, Any]:
    """The first session; once more, at an earlier moment, where it ended before the kill."""
    for _ in range(_ATTEMPTS):
        session = _run_session(contestant, folder, aim)
        if "status" not in session:
            return session
        shutil.rmtree(folder, ignore_errors=True)
        aim = draw_aim(rng, aim.place, seconds)
    raise RuntimeError(f"A run of {contestant.name} could not be killed: {session}")


def _run_session(contestant: Contestant, folder: Path, aim: Aim | None) -> dict[str, Any]:
    """Start or resume the run, and kill it at `aim`; without one, or where that is too late, to its end.

    "status" is in the result of one that has ended by itself.
    """
    whole_before = evidence.checkpoints(folder)
    log_before = len(evidence.log_of(folder))
    victim = _start(contestant, folder, resume=folder.exists())
    try:
        after = strike(victim, folder, aim) if aim else None
        session = {"killed_after": round(after, 3)} if after else {"status": victim.wait(_TIMEOUT)}
    finally:
        victim.kill()
    log = evidence.log_of(folder)[log_before:]
    start = next(iter(evidence.starts(log)), None)
    # A session that stops then has refused the file.
    used = evidence.loaded(log) if start is not None else []
    return {
        **(aim._asdict() if aim else {}),
        **session,
        "from_iteration": start,
        "reached": evidence.last_iteration(folder),
        "accepted_broken": [name for name in used if not whole_before.get(name, True)],
        "started_over": start == 0 and any(whole_before.values()),
        "left_unfinished": sorted(path.name for path in folder.glob("*.tmp")),
        "left_broken": [name for name, whole in evidence.checkpoints(folder).items() if not whole],
    }


def _start(contestant: Contestant, folder: Path, resume: bool) -> Victim:
    said = folder.with_name(f"{folder.name}.said")
    return Victim(contestant.main, contestant.command(folder, resume), said)


def _judge(reference: Reference, folder: Path, sessions: list[dict[str, Any]]) -> dict[str, Any]:
    rows = evidence.metrics(folder)
    last = sessions[-1]
    if last["status"]:
        outcome = NO_RESUME
    elif evidence.same_weights(evidence.final_weights(folder), reference.weights):
        outcome = IDENTICAL
    else:
        outcome = STARTED_OVER if any(session["started_over"] for session in sessions) else DIFFERS
    return {
        "outcome": outcome,
        "kills": sum("killed_after" in session for session in sessions),
        "repeated_iterations": len(evidence.repeated_iterations(rows)),
        "same_evaluations": evidence.evaluations(rows) == evidence.evaluations(reference.rows),
        "accepted_broken": [name for session in sessions for name in session["accepted_broken"]],
        **({"last_words": _last_words(folder)} if last["status"] else {}),
    }


def _last_words(folder: Path) -> str:
    """The last line that the command has printed."""
    said = folder.with_name(f"{folder.name}.said").read_text(errors="replace").strip()
    return said.rpartition("\n")[2]
