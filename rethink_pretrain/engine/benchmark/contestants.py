"""Trainers in processes of their own, which take a step when they are told to."""

import logging
import multiprocessing
import resource
import statistics
import time
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage

from ..trainer import Trainer
from .made import register_made
from .stock import StockTrainer

_SEED = 7
_PARTS = ("backbone", "proposal_generator", "roi_heads")


class Contestant:
    """A trainer in another process: allocator, threads and peak of memory are its own.

    Its methods are those of `Running`, by name; they raise `RuntimeError` with what went wrong there.
    """

    def __init__(self, cfg: CfgNode, is_stock: bool, register: tuple[str, Path, Path]):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, cfg, is_stock, register), daemon=True)
        self._process.start()
        theirs.close()

    def call(self, method: str, *args: Any) -> Any:
        """What `Running.<method>(*args)` returns; "" only waits until the trainer is built."""
        if method:
            self._pipe.send((method, args))
        try:
            answer, error = self._pipe.recv()
        except EOFError:
            raise RuntimeError(f"A contestant has died, exit code {self._process.exitcode}.") from None
        if error:
            raise RuntimeError(error)
        return answer

    def end(self) -> None:
        """Also of one that has failed."""
        self._pipe.close()
        self._process.join(60)
        self._process.kill()
        self._process.join()


@contextmanager
def started(contestants: dict[str, tuple[CfgNode, bool]], register: tuple[str, Path, Path]) -> Iterator[dict]:
    """Name -> `Contestant` of a config, stock's trainer or ours, on the data that `register_made` takes.

    One starts after the other, because ours may time its memory formats.
    """
    with ExitStack() as stack:
        ret = {}
        for name, (cfg, is_stock) in contestants.items():
            ret[name] = Contestant(cfg, is_stock, register)
            stack.callback(ret[name].end)
            ret[name].call("")
        yield ret


def _serve(pipe: Connection, cfg: CfgNode, is_stock: bool, register: tuple[str, Path, Path]) -> None:
    logging.disable(logging.WARNING)
    try:
        register_made(*register)
        seed_all_rng(_SEED)
        running = Running((StockTrainer if is_stock else Trainer)(cfg))
        pipe.send((None, ""))
        while True:
            method, args = pipe.recv()
            pipe.send((getattr(running, method)(*args), ""))
    except EOFError:
        running.close()
    except Exception:
        pipe.send((None, traceback.format_exc()))


class Running:
    """A trainer between its before_train and after_train, whose steps are called one by one."""

    def __init__(self, trainer: DefaultTrainer):
        self._trainer, self._storage, self._step = trainer, EventStorage(0), 0
        trainer.storage = self._storage
        trainer.iter = 0
        with self._storage:
            trainer.before_train()

    def write(self, file: Path) -> None:
        """Weights and a batch, with which the others begin."""
        batch = next(iter(self._trainer.data_loader))
        torch.save({"weights": self._trainer.model.state_dict(), "batch": batch}, file)

    def losses(self, file: Path) -> dict[str, float]:
        """Of the batch in `file`, with its weights, which this trainer has from now on."""
        start = torch.load(file, map_location="cpu", weights_only=False)
        # All by name: none is left over and none is missing.
        self._trainer.model.load_state_dict(start["weights"], strict=True)
        seed_all_rng(_SEED)  # the samples of RPN and RoI heads
        with EventStorage(0), torch.no_grad():
            losses = self._trainer.model(start["batch"])
        return {name: float(value) for name, value in losses.items()}

    def step(self) -> float:
        """Seconds of one step as in the host's `train`. On a GPU until all of it is computed.

        There, one step before it fills the allocator's cache, which is emptied at the end for the others.
        """
        if torch.cuda.is_available():
            self._one_step()
        start = time.perf_counter()
        self._one_step()
        seconds = time.perf_counter() - start
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return seconds

    def _one_step(self) -> None:
        trainer = self._trainer
        with self._storage:
            trainer.iter = self._step
            trainer.before_step()
            trainer.run_step()
            trainer.after_step()
        self._step += 1
        _synchronize()

    def peak_memory_gb(self) -> float:
        """Of the GPU's tensors, or on a CPU of the whole process, in GB (10^9 bytes)."""
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 1e9
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9

    def speed(self) -> dict[str, Any]:
        """RETHINK.SPEED as the trainer has settled it; {} of stock's."""
        is_ours = isinstance(self._trainer, Trainer)
        return dict(self._trainer.cfg.RETHINK.SPEED) if is_ours else {}

    def parts(self, steps: int) -> dict[str, float]:
        """Milliseconds of the forward pass in backbone, RPN and RoI heads; medians over `steps` steps."""
        model = self._trainer.model
        clocks = {name: _Clock() for name in _PARTS}
        handles = [
            handle
            for name, clock in clocks.items()
            for handle in (
                getattr(model, name).register_forward_pre_hook(lambda *_, clock=clock: clock.start()),
                getattr(model, name).register_forward_hook(lambda *_, clock=clock: clock.stop()),
            )
        ]
        whole = _Clock()
        for _ in range(steps):
            whole.start()
            self._one_step()
            whole.stop()
        for handle in handles:
            handle.remove()
        ret = {f"forward of {name}": clock.median() for name, clock in clocks.items()}
        ret["loader, backward and the rest"] = whole.median() - sum(ret.values())
        return ret

    def close(self) -> None:
        """Hooks end what they have begun; nothing is saved or evaluated."""
        with self._storage:
            if isinstance(self._trainer, Trainer):
                self._trainer.ended = "interrupted"
                self._trainer.after_train()


class _Clock:
    """Milliseconds between start and stop, once the device has done what stood before."""

    def __init__(self) -> None:
        self._times: list[float] = []

    def start(self) -> None:
        _synchronize()
        self._begin = time.perf_counter()

    def stop(self) -> None:
        _synchronize()
        self._times.append(1000 * (time.perf_counter() - self._begin))

    def median(self) -> float:
        return statistics.median(self._times)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
