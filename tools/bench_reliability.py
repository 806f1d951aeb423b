#!/usr/bin/env python
"""Kill toy runs at random moments, resume them, compare the end: tools/bench_reliability.py --stock --cost

Each trial is a run of some seconds on the CPU that is ended by SIGKILL up to three times, at moments drawn
over its whole training, inside its saves and inside its evaluations, and is resumed with --resume. Its final
weights are compared, bit for bit, with those of a run that nobody disturbed. --stock lets Detectron2's own
DefaultTrainer go through the same. Ends with 1 where a trial of this project's trainer does not come to the
same end, or has accepted a broken checkpoint.
"""

import argparse
import os
import tempfile
from pathlib import Path

from rethink_pretrain.command_line import tool

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "toy" / "scratch_mask_rcnn_R_18_FPN_gn.yaml"


def parse_args() -> argparse.Namespace:
    """How much, and where to."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    add = parser.add_argument
    add("--trials", type=int, default=25, metavar="N", help="(%(default)s)")
    add("--iterations", type=int, default=60, metavar="N", help="of a run (%(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="of the moments (%(default)s)")
    add("--stock", action="store_true", help="the same trials with Detectron2's DefaultTrainer")
    add("--cost", action="store_true", help="measure what being able to survive costs a step")
    add("--cost-steps", type=int, default=60, metavar="N", help="(%(default)s)")
    add("--json", type=Path, metavar="FILE", help="write every trial")
    add("--keep", type=Path, metavar="DIR", help="a new folder that keeps the runs")
    args = parser.parse_args()
    if args.trials < 0 or args.iterations < 6 or args.cost_steps < 2:
        parser.error("--trials is 0 or more, --iterations 6 or more, --cost-steps 2 or more")
    return args


def compete(args: argparse.Namespace, folder: Path) -> dict[str, dict]:
    """Name -> reference and trials of each contestant."""
    from rethink_pretrain.engine.reliability import make_reference, ours, run_trial, stock
    from rethink_pretrain.progress import progress

    contestants = [ours(ROOT / "tools" / "train_net.py", CONFIG, args.iterations)]
    contestants += [stock(CONFIG, args.iterations)] if args.stock else []
    ret = {}
    for contestant in contestants:
        place = folder / contestant.name
        place.mkdir()
        reference = make_reference(contestant, place)
        trials = []
        with progress(f"Killing {contestant.name}", args.trials) as task:
            for number in range(args.trials):
                run = place / f"trial{number}"
                trials.append(run_trial(contestant, reference, number, args.seed, run))
                task.advance(status=trials[-1]["outcome"])
        ret[contestant.name] = {
            "undisturbed_seconds": round(reference.seconds, 2),
            "repeatable": reference.repeatable,
            "trials": trials,
        }
    return ret


def cost(args: argparse.Namespace, folder: Path) -> dict:
    """See `measure_cost`."""
    from rethink_pretrain.engine.reliability import measure_cost
    from rethink_pretrain.progress import progress

    with progress("Measuring the cost") as task:
        return measure_cost(CONFIG, folder / "cost", args.cost_steps, task.advance)


def show(result: dict) -> None:
    """Tables of outcomes and of costs."""
    from rich.console import Console
    from rich.table import Table

    from rethink_pretrain.engine.reliability import summarize

    console = Console()
    if result["contestants"]:
        summaries = {name: summarize(part) for name, part in result["contestants"].items()}
        table = Table("", *summaries, title="Killed and resumed")
        for row in next(iter(summaries.values())):
            table.add_row(row, *(str(summary[row]) for summary in summaries.values()))
        console.print(table)
    if "cost" in result:
        found = result["cost"]
        table = Table("", "with", "without", "ratio", "quartiles", title="Cost of a step")
        seconds = [f"{found[key]:.4f} s" for key in ("seconds_with", "seconds_without")]
        table.add_row("time", *seconds, *shares(found["ratio"], found["quartiles"]))
        table.add_row("time on the CPU", "", "", *shares(found["cpu_ratio"], found["cpu_quartiles"]))
        console.print(table)


def shares(ratio: float, quartiles: list[float]) -> tuple[str, str]:
    """As percent of more or less."""
    low, high = quartiles
    return f"{ratio - 1:+.1%}", f"{low - 1:+.1%} to {high - 1:+.1%}"


def run(args: argparse.Namespace, folder: Path) -> int:
    """All of it, in `folder`; the exit status."""
    from rethink_pretrain.engine.reliability import all_survived, write_data
    from rethink_pretrain.engine.run_record import describe_session
    from rethink_pretrain.files import write_json

    write_data(folder / "data")
    result = {"session": describe_session(), "settings": vars(args) | {"json": None, "keep": None}}
    result["contestants"] = compete(args, folder) if args.trials else {}
    if args.cost:
        result["cost"] = cost(args, folder)
    show(result)
    if args.json:
        write_json(args.json, result)
    return 0 if not args.trials or all_survived(result["contestants"]["ours"]) else 1


@tool()
def main() -> None:
    """In a folder of its own, which goes at the end."""
    args = parse_args()
    # Runs are forked from this process, which must not have threads of its own.
    os.environ |= {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "1000"}
    with tempfile.TemporaryDirectory() as temporary:
        if args.keep:
            args.keep.mkdir(parents=True)
        raise SystemExit(run(args, args.keep or Path(temporary)))


if __name__ == "__main__":
    main()
