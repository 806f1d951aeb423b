#!/usr/bin/env python
"""The runs that rebuild a table or a figure: tools/sweep.py table1 [--run | --status]

Prints their commands; --run executes them one after the other, skips what is finished and resumes what broke
off; --status says how far each is.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

TRAIN_NET = Path(__file__).resolve().with_name("train_net.py")
SWEEPS = TRAIN_NET.parents[1] / "configs" / "sweeps"
LAST_LINES = 12  # of a failed run's log that are shown
POLL_SECONDS = 5  # between two looks at the files of a run


def parse_args() -> argparse.Namespace:
    """Which sweep, and what to do with it."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    parser.add_argument("sweep", metavar="SWEEP", help="a file, or the name of one in configs/sweeps/")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--print", action="store_true", help="print the commands (the default)")
    action.add_argument("--run", action="store_true", help="execute them")
    action.add_argument("--status", action="store_true", help="run, state, iteration and AP as a table")
    parser.add_argument("--num-gpus", type=int, default=1, help="of every run")
    parser.add_argument(
        "--at-once", type=int, default=1, metavar="N", help="runs at a time, which share the machine"
    )
    parser.add_argument("--output", default="output/sweeps", metavar="DIR", help="holds <sweep>/<run>")
    return parser.parse_args()


def find_sweep(name: str) -> Path:
    """The file of that path or name."""
    for path in (Path(name), SWEEPS / f"{name}.yaml"):
        if path.is_file():
            return path
    known = ", ".join(sorted(path.stem for path in SWEEPS.glob("*.yaml")))
    raise failure(f"Sweep {name!r} is neither a file nor one of: {known}.")


def command_of(run, num_gpus: int, resume: bool = False) -> list[str]:
    """The words of one run's command line."""
    flags = (["--num-gpus", str(num_gpus)] if num_gpus != 1 else []) + (["--resume"] if resume else [])
    return [str(TRAIN_NET), "--config-file", str(run.config), *flags, *run.opts]


def print_commands(runs: list, num_gpus: int) -> None:
    """One line for each run, finished or not."""
    for run in runs:
        words = command_of(run, num_gpus)
        for index in (0, 2):  # the tool and the config
            with suppress(ValueError):  # started elsewhere: the full path then
                words[index] = str(Path(words[index]).relative_to(Path.cwd()))
        print(shlex.join(["python", *words]))


def print_status(runs: list) -> None:
    """The table of all runs."""
    from rich.console import Console
    from rich.table import Table

    from rethink_pretrain.analysis.sweeps import read_state

    table = Table("run", "state", "iteration", "AP", box=None, pad_edge=False)
    counts: dict[str, int] = {}
    for run in runs:
        state = read_state(run.output)
        counts[state.kind] = counts.get(state.kind, 0) + 1
        iteration = f"{state.iteration}/{state.total or '?'}" if state.kind != "pending" else "-"
        table.add_row(run.name, state.kind, iteration, "-" if state.ap is None else f"{state.ap:.2f}")
    wide = None if sys.stdout.isatty() else 160  # a pipe gets whole names
    Console(width=wide).print(table)
    print(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))


def execute(runs: list, num_gpus: int, at_once: int) -> None:
    """All that are not finished, `at_once` of them at a time; a failure stops the others."""
    from rich.console import Console

    from rethink_pretrain.progress import progress

    console = Console(highlight=False, soft_wrap=True)
    waiting, jobs = list(enumerate(runs, start=1)), []
    with progress("runs", len(runs)) as task:
        try:
            while waiting or jobs:
                while waiting and len(jobs) < at_once:
                    number, run = waiting.pop(0)
                    label = f"[{number} of {len(runs)}] {run.name}"
                    jobs += begin(run, label, num_gpus, at_once, console)
                for job in [job for job in jobs if job.has_ended()]:
                    jobs.remove(job)
                    console.print(f"{job.label}: finished, {job.result()}", markup=False)
                task.move_to(len(runs) - len(waiting) - len(jobs))
        finally:
            for job in jobs:
                job.stop()


def begin(run, label: str, num_gpus: int, at_once: int, console) -> list:
    """The job of a run, in a list; [] where the run is finished."""
    from rethink_pretrain.analysis.sweeps import read_state

    state = read_state(run.output)
    if state.kind == "finished":
        console.print(f"{label}: finished before", markup=False)
        return []
    resume = state.kind == "unfinished"
    note = f", resumed at {state.iteration}" if resume else ""
    console.print(f"{label}: training{note}", markup=False)
    return [Job(run, label, command_of(run, num_gpus, resume), at_once)]


class Job:
    """A run whose output goes to <run>.log beside its folder; a bar tells its iteration."""

    def __init__(self, run, label: str, command: list[str], at_once: int = 1):
        from rethink_pretrain.analysis.sweeps import read_state
        from rethink_pretrain.progress import start

        self.run, self.label = run, label
        run.output.parent.mkdir(parents=True, exist_ok=True)
        self._log = run.output.with_name(f"{run.name}.log")
        state = read_state(run.output)
        self._bar = start(run.name, state.total or None, done=state.iteration)
        with self._log.open("a", encoding="utf-8") as file:
            # A session of its own: Ctrl-C reaches it once, from below, and not from the terminal as well.
            self._process = subprocess.Popen(
                [sys.executable, *command],
                stdout=file,
                stderr=file,
                start_new_session=True,
                env=shared_cores(at_once),
            )

    def has_ended(self) -> bool:
        """After a moment in which it may; moves the bar."""
        from rethink_pretrain.analysis.sweeps import read_state

        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=POLL_SECONDS)
        state = read_state(self.run.output)
        self._bar.move_to(state.iteration, state.total or None)
        return self._process.returncode is not None

    def result(self) -> str:
        """The AP in words. Raises `UserError` where the run failed."""
        from rethink_pretrain.analysis.sweeps import read_state

        status, name = self._process.returncode, self.run.name
        self._bar.stop(complete=status == 0)
        if status:
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
            print("\n".join(f"  {line}" for line in lines), file=sys.stderr)
            raise failure(f"{name} ended with status {status}; all it said is in {self._log}.")
        state = read_state(self.run.output)
        if state.kind != "finished":
            raise failure(f"{name} ended at iteration {state.iteration} of {state.total}, unevaluated.")
        return "no AP" if state.ap is None else f"AP {state.ap:.2f}"

    def stop(self) -> None:
        """The run and its bar; the run can be resumed."""
        stop(self._process)
        self._bar.stop(complete=False)


def shared_cores(at_once: int) -> dict[str, str]:
    """The environment of a run beside others: torch's threads would otherwise fill all cores for each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {"OMP_NUM_THREADS": str(max(1, cores // at_once))} if at_once > 1 else {}
    return {**threads, **os.environ}


def stop(process: subprocess.Popen) -> None:
    """As Ctrl-C in its own terminal would; killed if it does not listen."""
    for signum in (signal.SIGINT, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=30)
            return


def failure(message: str) -> Exception:
    """For one line on stderr."""
    from rethink_pretrain.errors import UserError

    return UserError(message)


def main() -> None:
    """Print, run or tell."""
    args = parse_args()
    from rethink_pretrain.analysis.sweeps import read_sweep
    from rethink_pretrain.errors import one_line_errors

    with one_line_errors():
        runs = read_sweep(find_sweep(args.sweep), args.output)
        if args.status:
            print_status(runs)
        elif args.run:
            execute(runs, args.num_gpus, max(args.at_once, 1))
        else:
            print_commands(runs, args.num_gpus)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("Stopped. The same command goes on where it was.", file=sys.stderr)
        raise SystemExit(130) from None
