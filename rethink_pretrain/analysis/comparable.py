"""Whether runs may be compared: what differs between them besides their start and their length."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..errors import UserError
from .runs import UNKNOWN, RunData

ABSENT = "(absent)"

# What a comparison of initialisations is about. The learning rate and the warm-up do not follow from the
# length, so they are not here.
_STUDIED = {
    *("MODEL.WEIGHTS", "MODEL.BACKBONE.FREEZE_AT"),
    *("RETHINK.SCHEDULE", "RETHINK.IMAGES_PER_EPOCH", "SOLVER.MAX_ITER", "SOLVER.STEPS"),
}
# What weights demand of the model and of its input: it may differ between arms, and only between arms.
_OF_WEIGHTS = {"MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "INPUT.FORMAT", "MODEL.RESNETS.STRIDE_IN_1X1"}
# What changes no result, or, as the seed, only by chance.
_HARMLESS = {
    *("SEED", "OUTPUT_DIR", "VERSION", "VIS_PERIOD", "CUDNN_BENCHMARK"),
    *("MODEL.DEVICE", "DATALOADER.NUM_WORKERS", "SOLVER.CHECKPOINT_PERIOD"),
    *("TEST.EVAL_PERIOD", "TEST.EXPECTED_RESULTS"),
    *("RETHINK.REFERENCE_EVAL_PERIOD", "RETHINK.REFERENCE_CHECKPOINT_PERIOD"),
    *("RETHINK.DOCTOR", "RETHINK.MIN_COVERAGE"),
}
_PRECISION = "RETHINK.SPEED.PRECISION"
# The second is of pre-training. The third makes the same training faster, but for the precision.
_HARMLESS_NODES = ("RETHINK.WATCH.", "RETHINK.CLASSIFIER.", "RETHINK.SPEED.")
# How a batch is split: harmless but for norms with statistics of what passes through the model at once.
_SPLITTING = {"RETHINK.MICRO_BATCH", "RETHINK.IMAGES_PER_GPU"}

_SHOWN = 5  # obstacles in an error's one line
_NAMES = 3  # runs of one value
_LONGEST_VALUE = 60  # characters


class Difference(NamedTuple):
    """A key and its value in each run."""

    key: str
    values: list[Any]
    allowed: bool


def differences(runs: Sequence[RunData]) -> list[Difference]:
    """All that differs between the configs, sorted; what may not differ comes first.

    Runs without a config are left out: their values are `ABSENT`.
    """
    facts = [_facts(run) for run in runs]
    known = [of_one for run, of_one in zip(runs, facts, strict=True) if run.config]
    ret = []
    for key in sorted(set().union(*known)):
        if any(of_one.get(key, ABSENT) != known[0].get(key, ABSENT) for of_one in known):
            values = [of_one.get(key, ABSENT) for of_one in facts]
            ret.append(Difference(key, values, _is_allowed(key, runs) or _follows_arms(key, runs, values)))
    digests = [data_digests(run) for run in runs]
    if len(set(digests) - {""}) > 1:
        values = [digest or ABSENT for digest in digests]
        ret.append(Difference("digest of the training data", values, allowed=False))
    return sorted(ret, key=lambda difference: (difference.allowed, difference.key))


def obstacles(runs: Sequence[RunData]) -> list[str]:
    """Why the runs may not be compared, a line for each reason; [] if they may.

    A run without a config passes where the user has named its arm.
    """
    ret = [
        f"{run.name} has no config.yaml, so how it was trained is unknown"
        for run in runs
        if run.arm == UNKNOWN
    ]
    for key, values, allowed in differences(runs):
        if not allowed:
            names = defaultdict(list)
            for value, run in zip(values, runs, strict=True):
                names[in_words(value)].append(run.name)
            words = (f"{_shorten(value)} in {_list(of_value)}" for value, of_value in names.items())
            ret.append(f"{key} is {', '.join(words)}")
    return ret


def check_comparable(runs: Sequence[RunData]) -> None:
    """Raises `UserError` with the first few obstacles, if there are any."""
    if reasons := obstacles(runs):
        more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        hint = "ARM=RUN names what such a run started from; " if any(r.arm == UNKNOWN for r in runs) else ""
        raise UserError(
            f"These runs are no comparison of initialisations: {'; '.join(reasons[:_SHOWN])}{more}. {hint}"
            "--force compares them with a warning on the page."
        )


def data_digests(run: RunData) -> str:
    """Names and digests of the image ids that the last session trained on, "" where none is recorded."""
    data = [data for session in run.sessions[-1:] for data in session.get("data", [])]
    return ", ".join(f"{item['name']} {item['digest']}" for item in data if "digest" in item)


def in_words(value: Any) -> str:
    """As it is, but "" for an empty string."""
    return str(value) or '""'


def _list(names: list[str]) -> str:
    """ "a and b", "a, b and 14 more"."""
    shown = names if len(names) <= _NAMES else [*names[: _NAMES - 1], f"{len(names) - _NAMES + 1} more"]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _shorten(text: str) -> str:
    """Of a long one the beginning and the end."""
    half = _LONGEST_VALUE // 2 - 2
    return text if len(text) <= _LONGEST_VALUE else f"{text[:half]} … {text[-half:]}"


def _facts(run: RunData) -> dict[str, Any]:
    """The config, with the batch that was in use. Runs that do not know of a precision had fp32."""
    if not run.config:
        return {}
    return {_PRECISION: "fp32", **run.config, "SOLVER.IMS_PER_BATCH": run.images_per_step}


def _is_allowed(key: str, runs: Sequence[RunData]) -> bool:
    if key in _SPLITTING:
        return not any(_has_batch_statistics(run.config) for run in runs)
    harmless = key in _HARMLESS or key.startswith(_HARMLESS_NODES)
    return key != _PRECISION and (harmless or key in _STUDIED)


def _follows_arms(key: str, runs: Sequence[RunData], values: Sequence[Any]) -> bool:
    """Whether it belongs to the weights, and runs of one arm agree."""
    of_arm = {(run.arm, in_words(value)) for run, value in zip(runs, values, strict=True) if run.config}
    return key in _OF_WEIGHTS and len(of_arm) == len({arm for arm, _ in of_arm})


def _has_batch_statistics(config: dict[str, Any]) -> bool:
    norms = (str(value) for key, value in config.items() if key.endswith(".NORM"))
    return any("BN" in norm and norm != "FrozenBN" for norm in norms)
