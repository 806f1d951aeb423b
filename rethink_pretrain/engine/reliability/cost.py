"""What it costs to be able to survive: steps with the checks and hooks for it, and without."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils.events import EventStorage

from ...config import load_config
from ...data import register_toy
from ..checkpoints import Checkpoints
from ..interruption import Interruption
from ..trainer import Trainer

_WARM_UP = 5  # steps that are not counted


class _BareTrainer(Trainer):
    """The same training without looking at losses and gradients, for signals, and for checkpoints."""

    def build_hooks(self) -> list[HookBase]:
        """Those that are left."""
        self._trainer._guard = None
        return [hook for hook in super().build_hooks() if not isinstance(hook, (Interruption, Checkpoints))]


def measure_cost(
    config_file: Path, folder: Path, steps: int, advance: Callable[[], Any] = lambda: None
) -> dict[str, Any]:
    """Seconds of a step with and without, by turns in this process, on the same images; CPU.

    "ratio" is the median over the pairs of steps, "quartiles" are of the same; "cpu_ratio" is of the time on
    the CPU, which other work on the machine disturbs less. No save and no evaluation is among the steps.
    `advance` is called after each pair.
    """
    register_toy()
    trainers = {
        name: trainer_type(_config(config_file, folder / name, steps))
        for name, trainer_type in (("with", Trainer), ("without", _BareTrainer))
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in trainers}
    storages = {name: EventStorage(0) for name in trainers}
    for name, trainer in trainers.items():
        trainer.storage = storages[name]
        trainer.before_train()
    try:
        for step in range(_WARM_UP + steps):
            names = list(trainers) if step % 2 else list(trainers)[::-1]
            for name in names:
                times[name].append(_step(trainers[name], storages[name], step))
            advance()
    finally:
        for name, trainer in trainers.items():
            trainer.ended = "interrupted"
            with storages[name]:
                trainer.after_train()
    return _compare(times["with"][_WARM_UP:], times["without"][_WARM_UP:])


def _compare(guarded: list[tuple[float, float]], bare: list[tuple[float, float]]) -> dict[str, Any]:
    wall, cpu = ([a[i] / b[i] for a, b in zip(guarded, bare, strict=True)] for i in (0, 1))
    return {
        "steps": len(guarded),
        "seconds_with": statistics.median(seconds for seconds, _ in guarded),
        "seconds_without": statistics.median(seconds for seconds, _ in bare),
        "ratio": statistics.median(wall),
        "quartiles": statistics.quantiles(wall, n=4)[::2],
        "cpu_ratio": statistics.median(cpu),
        "cpu_quartiles": statistics.quantiles(cpu, n=4)[::2],
    }


def _config(config_file: Path, output: Path, steps: int) -> Any:
    longer = _WARM_UP + steps + 1  # its last step would save and evaluate
    values = {
        "RETHINK.SCHEDULE": f"{8 * longer} images",
        "RETHINK.REFERENCE_WARMUP_ITERS": 0,
        "SOLVER.CHECKPOINT_PERIOD": 0,
        "TEST.EVAL_PERIOD": 0,
        "SEED": 7,
        "MODEL.DEVICE": "cpu",
        "OUTPUT_DIR": output,
    }
    output.mkdir(parents=True)
    return load_config(config_file, [], [str(word) for pair in values.items() for word in pair])


def _step(trainer: Trainer, storage: EventStorage, step: int) -> tuple[float, float]:
    """Seconds, and those on the CPU."""
    trainer.iter = step
    with storage:
        start, cpu_start = time.perf_counter(), time.process_time()
        trainer.before_step()
        trainer.run_step()
        trainer.after_step()
        return time.perf_counter() - start, time.process_time() - cpu_start
