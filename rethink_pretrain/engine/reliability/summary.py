"""The trials of one contestant in a few numbers."""

from typing import Any

from .trials import IDENTICAL, OUTCOMES


def summarize(part: dict[str, Any]) -> dict[str, str | int]:
    """What is counted -> how often. `part` is what the tool keeps of a contestant."""
    trials = part["trials"]
    sessions = [session for trial in trials for session in trial["sessions"]]
    return {
        "undisturbed runs that agree": "2 of 2" if part["repeatable"] else "1 of 2",
        **{outcome: sum(trial["outcome"] == outcome for trial in trials) for outcome in OUTCOMES},
        "trials": len(trials),
        "kills": sum(trial["kills"] for trial in trials),
        "kills aimed at a save": _kills(sessions, "save"),
        "kills aimed at an evaluation": _kills(sessions, "evaluation"),
        "kills that left a temporary file": sum(bool(s["left_unfinished"]) for s in sessions),
        "kills that left a broken checkpoint": sum(bool(s["left_broken"]) for s in sessions),
        "broken checkpoints accepted": sum(len(trial["accepted_broken"]) for trial in trials),
        "runs that began again in spite of a checkpoint": sum(_began_again(trial) for trial in trials),
        "runs with iterations twice in metrics.json": sum(t["repeated_iterations"] > 0 for t in trials),
        "runs with the same AP at each evaluation": sum(trial["same_evaluations"] for trial in trials),
    }


def all_survived(part: dict[str, Any]) -> bool:
    """Whether every trial came to the same end, and no broken checkpoint was taken for a good one."""
    return all(
        trial["outcome"] == IDENTICAL and not trial["accepted_broken"] and not trial["repeated_iterations"]
        for trial in part["trials"]
    )


def _kills(sessions: list[dict[str, Any]], place: str) -> int:
    return sum(session.get("place") == place and "killed_after" in session for session in sessions)


def _began_again(trial: dict[str, Any]) -> bool:
    return any(session["started_over"] for session in trial["sessions"])
