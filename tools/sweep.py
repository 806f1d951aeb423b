#!/usr/bin/env python
"""The runs that rebuild a table or a figure: tools/sweep.py table1 [--run | --status]

Prints their commands; --run executes them one after the other, skips what is finished and resumes what broke
off; --status says how far each is.
"""

import argparse
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from rethink_pretrain.command_line import tool

TRAIN_NET = Path(__file__).resolve().with_name("train_net.py")
SWEEPS = TRAIN_NET.parents[1] / "configs" / "sweeps"


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


def command_of(run, num_gpus: int) -> list[str]:
    """The words of one run's command line."""
    flags = ["--num-gpus", str(num_gpus)] if num_gpus != 1 else []
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

    from rethink_pretrain.engine.jobs import Job, run_jobs

    console = Console(highlight=False, soft_wrap=True)
    jobs = [Job(run.name, command_of(run, num_gpus), run.output) for run in runs]
    run_jobs(jobs, at_once, lambda line: console.print(line, markup=False))


def failure(message: str) -> Exception:
    """For one line on stderr."""
    from rethink_pretrain.errors import UserError

    return UserError(message)


@tool("Stopped. The same command goes on where it was.")
def main() -> None:
    """Print, run or tell."""
    args = parse_args()
    from rethink_pretrain.analysis.sweeps import read_sweep

    runs = read_sweep(find_sweep(args.sweep), args.output)
    if args.status:
        print_status(runs)
    elif args.run:
        execute(runs, args.num_gpus, max(args.at_once, 1))
    else:
        print_commands(runs, args.num_gpus)


if __name__ == "__main__":
    main()
