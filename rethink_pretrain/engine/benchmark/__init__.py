"""Stock Detectron2 and this project on the same data and weights, by turns on one machine."""

import importlib
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import detectron2
import torch

from ... import compat
from ...cores import usable_cores
from ...errors import UserError
from ..run_record import describe_session
from .settings import Settings

__all__ = ["PARTS", "Settings", "machine", "measure"]

# Part -> the module whose `measure_<part>` gives its rows. Each is imported when it is asked for, because a
# part may need what another does not.
PARTS = {
    "startup": "startup",
    "memory": "memory",
    "subset": "subset",
    "loader": "loader",
    "masks": "masks",
    "layers": "layers",
    "norm": "norm",
    "train": "train",
    "eval": "average_precision",
}


def measure(part: str, settings: Settings) -> dict[str, Any]:
    """What one part found, as its json has it. Raises `UserError` for an unknown part."""
    if part not in PARTS:
        raise UserError(f"Unknown part {part!r}. Choose from {', '.join(PARTS)}.")
    rows = _measure_of(part)(settings)
    return {"part": part, "session": describe_session(), "machine": machine(), "rows": rows}


def _measure_of(part: str) -> Callable[[Settings], list[dict[str, Any]]]:
    module = importlib.import_module(f"{__name__}.{PARTS[part]}")
    return getattr(module, f"measure_{part}")


def machine() -> dict[str, Any]:
    """What figures depend on: processor, cores, memory, GPU, and where the host comes from."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "memory_gb": _memory_gb(),
        "gpus": gpus,
        "cuda": torch.version.cuda if gpus else None,
        "detectron2": _host(),
    }


def _cpu_model() -> str:
    lines = _lines(Path("/proc/cpuinfo"))
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _memory_gb() -> float | None:
    """In GB (10^9 bytes)."""
    found = (int(line.split()[1]) for line in _lines(Path("/proc/meminfo")) if line.startswith("MemTotal"))
    return next((round(kilobytes * 1024 / 1e9, 1) for kilobytes in found), None)


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _host() -> str:
    """Main calls itself 0.6, too; that its trainer's checkpoints hold the optimizer tells them apart."""
    return f"{detectron2.__version__} ({'main' if compat.host_loads_optimizer() else 'release'})"
