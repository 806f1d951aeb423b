#!/usr/bin/env python
"""How runs are doing: tools/status.py output [--json]

A run's folder holds config.yaml or metrics.json. Time left is that of the iterations, without evaluations.
"""

import argparse
import json
import sys

from rethink_pretrain.command_line import tool


def parse_args() -> argparse.Namespace:
    """Which folders."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    parser.add_argument("folders", nargs="+", metavar="OUTPUT", help="folders of runs, or above them")
    parser.add_argument("--json", action="store_true", help="one list of objects, for programs")
    return parser.parse_args()


def cells(status) -> list[str]:
    """The row of the table."""
    from rethink_pretrain.progress import duration

    def text(value, form) -> str:
        return "-" if value is None else form(value)

    return [
        status.name,
        status.state,
        f"{status.iteration}/{status.total or '?'}",
        text(status.ap, "{:.2f}".format),
        text(status.seconds_per_iteration, "{:.3f}".format),
        text(status.eta_seconds, duration),
        text(status.seconds_since_write, lambda seconds: f"{duration(seconds)} ago"),
        status.incident or "-",
    ]


def print_table(statuses: list) -> None:
    """A line for each run."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    titles = ("run", "state", "iteration", "AP", "s/it", "left", "wrote", "incident")
    table = Table(*titles, box=None, pad_edge=False)
    for status in statuses:
        table.add_row(*map(Text, cells(status)))
    wide = None if sys.stdout.isatty() else 240  # a pipe gets whole names
    Console(width=wide).print(table)


@tool()
def main() -> None:
    """Find, read, print."""
    args = parse_args()
    from rethink_pretrain.analysis.status import find_runs, read_status

    statuses = [read_status(run) for run in find_runs(args.folders)]
    if args.json:
        print(json.dumps([status._asdict() for status in statuses], indent=2))
    else:
        print_table(statuses)


if __name__ == "__main__":
    main()
