"""run.json: what ran, on what, with which versions, and what it cost."""

import json
import logging
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import detectron2
import numpy
import torch
import torchvision
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm

from ..data import describe_dataset
from ..files import write_json
from .processes import job_id
from .recipe import describe_recipe

logger = logging.getLogger(__name__)

_REPOSITORY = Path(__file__).resolve().parents[2]


class RunRecord(HookBase):
    """Writes `OUTPUT_DIR/run.json` when training starts, and again with its cost when it ends.

    The file holds a list under "sessions", one for the start and one more for every resume, so that
    the cost of a run that was interrupted adds up.
    """

    def __init__(self, cfg: CfgNode):
        self._path = Path(cfg.OUTPUT_DIR) / "run.json"
        self._images_per_batch = cfg.SOLVER.IMS_PER_BATCH
        self._seed = cfg.SEED
        self._datasets = cfg.DATASETS.TRAIN
        self._recipe = describe_recipe(cfg, comm.get_world_size())

    def before_train(self) -> None:
        """Append this session, with all that is known before the first iteration."""
        self._record = read_run_record(self._path)
        self._start, self._samples = time.perf_counter(), self.trainer.samples
        self._session = {
            **describe_session(),
            "job": job_id(),
            "seed": self._seed,
            "recipe": self._recipe,
            "start_iter": self.trainer.start_iter,
            "data": [describe_dataset(name) for name in self._datasets],
            "weights": self.trainer.checkpointer.loaded,
        }
        self._record["sessions"].append(self._session)
        self._write()

    def after_train(self) -> None:
        """Add what the session cost, also when it ends by an error."""
        images, exposure = self.trainer.samples - self._samples, self.trainer.exposure
        self._session |= {
            "end_iter": self.trainer.start_iter + images // self._images_per_batch,
            "ended": self.trainer.ended,
            "train_seconds": round(time.perf_counter() - self._start, 1),
            "images_seen": images,
            **({"samples": exposure._asdict()} if exposure else {}),
            "peak_rss_mb": peak_rss_mb(),
        }
        self._write()

    def _write(self) -> None:
        try:
            write_json(self._path, self._record)
        except OSError as error:  # a full disk ends no training
            logger.error("%s cannot be written: %s.", self._path, error.strerror or error)


def read_run_record(path: Path) -> dict[str, Any]:
    """The record at `path`, or an empty one."""
    if path.is_file():
        return json.loads(path.read_text())
    return {"sessions": []}


def describe_session() -> dict[str, Any]:
    """Time, command, commit, versions and hardware of this process."""
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "commit": _commit(),
        "versions": versions(),
        "hardware": _hardware(),
    }


def versions() -> dict[str, str]:
    """Versions of what a result depends on. Detectron2's main calls itself 0.6 too; its path tells more."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": numpy.__version__,
        "detectron2": detectron2.__version__,
    }


def peak_rss_mb() -> float:
    """Peak resident memory of this process so far, in MB (10^6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e6, 1)  # kB on Linux


def _hardware() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu_cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpus": gpus,
        "processes": comm.get_world_size(),
    }


def _commit() -> str | None:
    """The commit of this repository, "+" behind it where the tree has changes; None outside one."""
    try:
        git = ["git", "-C", str(_REPOSITORY)]
        commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True, stderr=subprocess.DEVNULL)
        changes = subprocess.check_output(
            [*git, "status", "--porcelain", "--untracked-files=no"], text=True, stderr=subprocess.DEVNULL
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.strip() + ("+" if changes.strip() else "")
