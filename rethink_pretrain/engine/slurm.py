"""Training as a job of SLURM that saves itself and goes back into the queue before it is stopped.

`submit` hands `TrainJob`s to submitit: one task for each GPU, each with a process of its own, which finds its
rank in RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.
"""

import contextlib
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ..errors import UserError

# SLURM tells a job this long before its time is up; then it has to save and to ask for a place in the queue.
_NOTICE_SECONDS = 120
_SECONDS_TO_SAVE = 90
_MIN_MINUTES = 5
# How a script ends that SIGTERM has stopped, with a handler of its own or without.
_STOPPED = (128 + signal.SIGTERM, -signal.SIGTERM)


class Resources(NamedTuple):
    """What a job asks for: `minutes` is its time limit, `mem` of one machine as sbatch takes it ("200G")."""

    nodes: int
    gpus_per_node: int
    minutes: int
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    cpus_per_gpu: int | None = None
    mem: str | None = None
    job_name: str = "rethink_pretrain"


def parse_minutes(text: str) -> int:
    """Whole minutes of a time as sbatch takes it, rounded up.

    "90" are minutes; "M:S", "H:M:S", "D-H", "D-H:M" and "D-H:M:S" are the other forms. Raises `UserError` for
    anything else and for less than five minutes, of which the last two are for saving.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if match is None:
        raise UserError(f'--time {text}: give minutes ("90"), "12:00:00" or days ("3-00", "3-12:00:00").')
    days, *rest = match.groups()
    numbers = [int(number) for number in rest if number is not None]
    if days is None and len(numbers) < 3:
        numbers = [0, *numbers]  # without days the first of one or two numbers are minutes
    hours, minutes, seconds = (*numbers, 0, 0)[:3]
    total = (int(days or 0) * 24 + hours) * 60 + minutes + (seconds + 59) // 60
    if total < _MIN_MINUTES:
        raise UserError(f"--time {text}: give at least {_MIN_MINUTES} minutes; the last two are for saving.")
    return total


class TrainJob:
    """One task of a job: runs `command` (a Python script and its arguments) in a process of its own.

    With `resume`, as after a requeue, --resume follows the script's name. The script has to end with status 0
    when all is done, and on SIGTERM to save and end with 143. `patience` are the seconds that a task which
    was stopped waits for SLURM.

    The process is a separate one for two reasons. submitit acts on signals in Python's main thread, which in
    training often waits inside a library. And it ends its process where it stands, while the processes of a
    run have to save the same iteration.
    """

    def __init__(self, command: Sequence[str], resume: bool = False, patience: float = 600):
        self.command = tuple(command)
        self.resume = resume
        self.patience = patience

    def __call__(self) -> None:
        """Run to the end. Where the job has to stop, rank 0 puts it back into the queue and exits.

        Raises `RuntimeError` if the script fails.
        """
        submitit = import_submitit()
        # All GPUs stay visible: the script takes the one of its LOCAL_RANK.
        environment = submitit.helpers.TorchDistributedEnvironment()
        environment.export(set_cuda_visible_devices=False, overwrite=True)
        requeue_signal = signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"]
        requeue = signal.getsignal(requeue_signal)
        with _recorded(requeue_signal, signal.SIGTERM) as received:
            status = self._run(received, requeue_signal)
            # SIGTERM alone does not tell a preemption, after which SLURM itself starts the job again, from a
            # cancelled job. A job that ends by itself may not be started again: this one waits to be killed.
            deadline = time.monotonic() + self.patience
            while status in _STOPPED and requeue_signal not in received and time.monotonic() < deadline:
                time.sleep(0.1)
        if status != 0 and requeue_signal in received:
            # submitit's own handler: on rank 0 it asks `checkpoint`, requeues and exits.
            requeue(requeue_signal, None)
        elif status != 0:
            raise RuntimeError(f"{self.command[0]} ended with status {status}.")

    def checkpoint(self):
        """For submitit: what to run when the job starts again."""
        again = type(self)(self.command, resume=True, patience=self.patience)
        return import_submitit().helpers.DelayedSubmission(again)

    def _words(self) -> list[str]:
        script, *arguments = self.command
        first = ["--resume"] if self.resume and "--resume" not in arguments else []
        return [sys.executable, "-u", script, *first, *arguments]

    def _run(self, received: list[int], requeue_signal: int) -> int:
        """The script's exit status. A signal is passed on as SIGTERM; SLURM's notice leaves 90 seconds."""
        # SLURM signals every process of a job, so the script and its data loaders too. Of this signal they
        # are to hear from here alone: by default SIGUSR2 ends a process.
        process = subprocess.Popen(
            self._words(), preexec_fn=lambda: signal.signal(requeue_signal, signal.SIG_IGN)
        )
        told, deadline = False, math.inf
        try:
            while process.poll() is None:
                if received and not told:
                    process.terminate()
                    told = True
                if requeue_signal in received and deadline == math.inf:
                    deadline = time.monotonic() + _SECONDS_TO_SAVE
                if time.monotonic() > deadline:
                    process.kill()
                time.sleep(0.1)
        finally:
            process.kill()
        return process.returncode


@contextlib.contextmanager
def _recorded(*signals: int) -> Iterator[list[int]]:
    """Within, these signals do nothing but appear in the list."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in signals}
    for number in signals:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def import_submitit() -> ModuleType:
    """submitit, or a `UserError` that tells how to get it."""
    try:
        import submitit
    except ModuleNotFoundError as error:
        if error.name != "submitit":
            raise
        raise UserError("Jobs need submitit, which is not installed: pip install submitit") from None
    return submitit


def submit(
    jobs: Sequence[TrainJob],
    resources: Resources,
    folder: Path,
    *,
    executor: str = "slurm",
    max_requeues: int = 20,
    parallel: int = 1,
) -> list[Any]:
    """submitit's handles of the jobs, which are on their way; logs and what submitit keeps go to `folder`.

    Several are one array, of which `parallel` run at a time. A job whose time is up is requeued
    `max_requeues` times; preemptions do not count. `executor` "local" starts them all on this machine, each
    with `gpus_per_node` processes. Raises `UserError` where there is no SLURM, and with sbatch's own words.
    """
    submitit = import_submitit()
    if executor == "local":
        runner = submitit.LocalExecutor(folder, max_num_timeout=max_requeues)
        runner.update_parameters(**_local_parameters(resources))
    else:
        try:
            runner = submitit.SlurmExecutor(folder, max_num_timeout=max_requeues)
        except RuntimeError:
            raise UserError("There is no SLURM here: sbatch and srun are not on the PATH.") from None
        runner.update_parameters(**slurm_parameters(resources, parallel))
    try:
        with runner.batch():
            handles = [runner.submit(job) for job in jobs]
    except submitit.core.utils.FailedJobError as error:
        raise UserError(f"sbatch refused the job: {' '.join(str(error).split())}") from None
    return handles


def slurm_parameters(resources: Resources, parallel: int = 1) -> dict[str, Any]:
    """In submitit's words for sbatch: a task per GPU, a notice before the end, the right to be requeued."""
    given = {name: value for name, value in resources._asdict().items() if value is not None}
    del given["minutes"]
    # Without it, the other tasks of a run wait half an hour for one that has failed.
    srun_args = ["--kill-on-bad-exit=1"]
    if cpus := given.pop("cpus_per_gpu", None):
        given["cpus_per_task"] = cpus
        srun_args.append(f"--cpus-per-task={cpus}")  # newer ones do not take it from sbatch
    return {
        **given,
        "time": resources.minutes,
        "ntasks_per_node": resources.gpus_per_node,
        "array_parallelism": parallel,
        "signal_delay_s": _NOTICE_SECONDS,
        "stderr_to_stdout": True,
        "srun_args": srun_args,
        "additional_parameters": {"requeue": True},
    }


def sbatch_script(resources: Resources, folder: Path, num_jobs: int = 1, parallel: int = 1) -> str:
    """What `submit` would give to sbatch; needs no SLURM."""
    import_submitit()
    # Not public, but SlurmExecutor cannot even be made without SLURM. A test compares with what that submits.
    from submitit.slurm.slurm import _make_sbatch_string

    folder = folder.expanduser().absolute()
    return _make_sbatch_string(
        command=shlex.join([sys.executable, "-u", "-m", "submitit.core._submit", str(folder)]),
        folder=folder,
        map_count=num_jobs if num_jobs > 1 else None,
        **slurm_parameters(resources, parallel),
    )


def _local_parameters(resources: Resources) -> dict[str, Any]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {
        "timeout_min": resources.minutes,
        "tasks_per_node": resources.gpus_per_node,
        # submitit numbers the GPUs from 0 whatever the user has chosen, unless it is told these numbers.
        "gpus_per_node": 0 if visible == "" else resources.gpus_per_node,
        "visible_gpus": tuple(int(number) for number in re.findall(r"\d+", visible or "")),
        "signal_delay_s": _NOTICE_SECONDS,
        "stderr_to_stdout": True,
    }
