"""What a resume changes in the config that its run was started with."""

from pathlib import Path
from typing import Any, NamedTuple

import yaml
from detectron2.config import CfgNode

from ..analysis.runs import flatten
from ..errors import UserError

# Keys, or beginnings of keys, that change nothing of what is trained.
_HARMLESS = (
    "OUTPUT_DIR",
    "VERSION",
    "VIS_PERIOD",
    "CUDNN_BENCHMARK",
    "DATALOADER.NUM_WORKERS",
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",  # the checkpoint holds all of them
    "SOLVER.CHECKPOINT_PERIOD",
    "TEST.",
    "DATASETS.TEST",
    "RETHINK.WATCH.",
    "RETHINK.DOCTOR",
    "RETHINK.KEEP_CHECKPOINTS",
    "RETHINK.TRUST_PICKLE",
    "RETHINK.REFERENCE_EVAL_PERIOD",
    "RETHINK.REFERENCE_CHECKPOINT_PERIOD",
    "RETHINK.SPEED.MEMORY_FORMAT",  # of the first start, where it was "auto"
    "RETHINK.IMAGES_PER_GPU",  # counts by what follows from it
)


class Change(NamedTuple):
    """One key of the config."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} {self.before} -> {self.now}"


def written_keys(folder: str) -> dict[str, Any]:
    """Those of config.yaml in `folder`, as "SOLVER.MAX_ITER"; {} without the file, or where it is torn."""
    try:
        config = yaml.safe_load(Path(folder, "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):  # torn by a kill, which writes it anew
        return {}
    return flatten(config) if isinstance(config, dict) else {}


def find_changes(cfg: CfgNode) -> list[Change]:
    """Keys that matter to training whose value in OUTPUT_DIR/config.yaml is another; [] without the file.

    Keys that the file does not have, because an older version wrote it, are no change.
    """
    old, now = written_keys(cfg.OUTPUT_DIR), flatten(yaml.safe_load(cfg.dump()))
    return [
        Change(key, old[key], value)
        for key, value in now.items()
        if key in old and old[key] != value and not key.startswith(_HARMLESS)
    ]


def refuse_another_batch(cfg: CfgNode) -> None:
    """Raises `UserError` for a resume with another batch: an iteration would no longer be as many images."""
    for change in find_changes(cfg):
        if change.key == "SOLVER.IMS_PER_BATCH":
            raise UserError(
                f"The run in {cfg.OUTPUT_DIR!r} takes {change.before} images per step, this command "
                f"{change.now}. Resume it with SOLVER.IMS_PER_BATCH {change.before}: any number of GPUs that "
                "divides it will do, and RETHINK.MICRO_BATCH fits it to less memory."
            )
