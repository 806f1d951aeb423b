"""Where the numbers of a run come from, by its run.json."""

import shlex
from collections.abc import Iterable
from typing import Any

from .runs import RunData

_DIGITS = 12  # of a digest: enough to tell two apart


def describe_origin(run: RunData) -> dict[str, str]:
    """Fact -> what it was, in words; what changed between sessions is listed in their order."""
    facts: dict[str, list[Any]] = {
        "initial weights": [_describe_weights(run)],
        "seed": [run.seed],
        "sessions": [len(run.sessions) or None],
        "ended": [session.get("ended") for session in run.sessions[-1:]],
    }
    for session in run.sessions:
        for fact, value in _describe_session(session).items():
            facts.setdefault(fact, []).append(value)
    return {fact: words for fact, values in facts.items() if (words := _distinct(values))}


def _describe_weights(run: RunData) -> str | None:
    weights = run.config.get("MODEL.WEIGHTS")
    # Later sessions load a checkpoint.
    digests = [session.get("weights", {}).get("sha256") for session in run.sessions[:1]]
    if weights and any(digests):
        return f"{weights} (sha256 {digests[0][:_DIGITS]})"
    return "none" if weights == "" else weights


def _describe_session(session: dict[str, Any]) -> dict[str, Any]:
    hardware, commit = session.get("hardware", {}), session.get("commit") or ""
    return {
        "command": shlex.join(session.get("command", [])),
        "data": ", ".join(_describe_data(data) for data in session.get("data", [])),
        "commit": commit[:_DIGITS] + (" with changes" if commit.endswith("+") else ""),
        **session.get("versions", {}),
        "GPUs": ", ".join(_distinct_list(hardware.get("gpus", []))),
        "processes": hardware.get("processes"),
        "CPU cores": hardware.get("cpu_cores"),
    }


def _describe_data(data: dict[str, Any]) -> str:
    """ "toy_train (200 images, 812 instances, digest 0a1b)"; the host's sets have their name alone."""
    told = [f"{data[key]:,} {key}" for key in ("images", "instances") if key in data]
    told += [f"digest {data['digest'][:_DIGITS]}"] if "digest" in data else []
    return data["name"] + (f" ({', '.join(told)})" if told else "")


def _distinct(values: Iterable[Any]) -> str:
    return "; ".join(_distinct_list(str(value) for value in values if value not in (None, "")))


def _distinct_list(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
