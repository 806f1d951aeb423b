"""Trainings as processes of their own, some of them at a time, each with its log and its bar."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..analysis.sweeps import State, read_state
from ..cores import usable_cores
from ..errors import UserError
from ..progress import progress, start

LAST_LINES = 12  # of a failed run's log that are shown
POLL_SECONDS = 5  # between two looks at the files of a run


class Job(NamedTuple):
    """A command, without Python, that trains into the folder `output` and knows --resume."""

    name: str
    command: list[str]
    output: Path

    @property
    def log(self) -> Path:
        """All that it says; beside its folder."""
        return self.output.with_name(f"{self.name}.log")


def run_jobs(jobs: Sequence[Job], at_once: int = 1, say: Callable[[str], None] = print) -> list[State]:
    """Run what is not finished, resume what broke off, `at_once` of them at a time; how each ended.

    Raises `UserError` where one fails; the others are then stopped, and can be resumed.
    """
    waiting, running = list(enumerate(jobs, start=1)), []
    with progress("runs", len(jobs)) as task:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    number, job = waiting.pop(0)
                    running += _begin(job, f"[{number} of {len(jobs)}] {job.name}", at_once, say)
                for process in [process for process in running if process.has_ended()]:
                    running.remove(process)
                    say(f"{process.label}: finished, {process.result()}")
                task.move_to(len(jobs) - len(waiting) - len(running))
        finally:
            for process in running:
                process.stop()
    return [read_state(job.output) for job in jobs]


def _begin(job: Job, label: str, at_once: int, say: Callable[[str], None]) -> list["_Process"]:
    """In a list; [] where the job is finished."""
    state = read_state(job.output)
    if state.kind == "finished":
        say(f"{label}: finished before")
        return []
    resume = state.kind == "unfinished"
    say(f"{label}: training" + (f", resumed at {state.iteration}" if resume else ""))
    return [_Process(job, label, state, at_once)]


class _Process:
    """A job that runs; the bar tells its iteration."""

    def __init__(self, job: Job, label: str, state: State, at_once: int):
        self.label = label
        self._job = job
        self._bar = start(job.name, state.total or None, done=state.iteration)
        job.output.parent.mkdir(parents=True, exist_ok=True)
        tool, *words = job.command
        resume = ["--resume"] if state.kind == "unfinished" else []
        with job.log.open("a", encoding="utf-8") as file:
            # A session of its own: Ctrl-C reaches it once, from `stop`, and not from the terminal as well.
            self._process = subprocess.Popen(
                [sys.executable, tool, *resume, *words],
                stdout=file,
                stderr=file,
                start_new_session=True,
                env=_shared_cores(at_once),
            )

    def has_ended(self) -> bool:
        """After a moment in which it may; moves the bar."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=POLL_SECONDS)
        state = read_state(self._job.output)
        self._bar.move_to(state.iteration, state.total or None)
        return self._process.returncode is not None

    def result(self) -> str:
        """The metric in words. Raises `UserError` where the run failed."""
        status, job = self._process.returncode, self._job
        self._bar.stop(complete=status == 0)
        if status:
            lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
            print("\n".join(f"  {line}" for line in lines), file=sys.stderr)
            raise UserError(f"{job.name} ended with status {status}; all it said is in {job.log}.")
        state = read_state(job.output)
        if state.kind != "finished":
            raise UserError(f"{job.name} ended at iteration {state.iteration} of {state.total}, unevaluated.")
        return "no AP" if state.ap is None else f"{state.metric} {state.ap:.2f}"

    def stop(self) -> None:
        """As Ctrl-C in its own terminal would; killed if it does not listen."""
        for signum in (signal.SIGINT, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signum)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=30)
                break
        self._bar.stop(complete=False)


def _shared_cores(at_once: int) -> dict[str, str]:
    """The environment of a run beside others: torch's threads would otherwise fill all cores for each."""
    threads = {"OMP_NUM_THREADS": str(max(1, usable_cores() // at_once))} if at_once > 1 else {}
    return {**threads, **os.environ}
