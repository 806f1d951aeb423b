#!/usr/bin/env python
"""Train on SLURM: tools/launch_slurm.py --nodes 2 --gpus-per-node 8 --time 3-00 -- --config-file FILE ...

Behind -- stand the arguments of tools/train_net.py, or --sweep names a file whose runs become one job array:
finished runs are left out and broken ones resumed, so wait until an earlier submission of it has ended. A job
that is preempted, or whose time is up, saves, goes back into the queue and resumes. --executor local runs it
on this machine and waits for it.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from rethink_pretrain.command_line import tool

TRAIN_NET = Path(__file__).resolve().with_name("train_net.py")
OURS = ("--num-gpus", "--num-machines", "--machine-rank", "--dist-url")  # flags that the job decides


def parse_args() -> argparse.Namespace:
    """Flags of the job; what stands behind -- goes to `train_args`."""
    words = sys.argv[1:]
    cut = words.index("--") if "--" in words else len(words)
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="machines")
    parser.add_argument("--gpus-per-node", type=int, default=8, metavar="N", help="one process each")
    parser.add_argument("--time", required=True, help='limit: minutes, "12:00:00" or "3-00" (days)')
    parser.add_argument("--partition", metavar="P")
    parser.add_argument("--account", metavar="A")
    parser.add_argument("--qos", metavar="Q")
    parser.add_argument("--constraint", metavar="C", help="on the kind of machine")
    parser.add_argument("--cpus-per-gpu", type=int, metavar="N")
    parser.add_argument("--mem", help='of a machine: "200G"')
    parser.add_argument("--job-name", default="rethink_pretrain", metavar="NAME")
    parser.add_argument("--sweep", metavar="FILE", help="a file of configs/sweeps/, instead of -- ...")
    parser.add_argument("--parallel", type=int, default=4, metavar="N", help="runs of a sweep at a time")
    requeue_help = "after its time is up; preemptions do not count"
    parser.add_argument("--max-requeues", type=int, default=20, metavar="N", help=requeue_help)
    parser.add_argument("--executor", choices=("slurm", "local"), default="slurm")
    parser.add_argument("--dry-run", action="store_true", help="print the script for sbatch, submit nothing")
    parser.add_argument("--log-dir", type=Path, default=Path("output/slurm"), metavar="DIR")
    return parser.parse_args(words[:cut], argparse.Namespace(train_args=words[cut + 1 :]))


def check_flags(args: argparse.Namespace) -> None:
    """What argparse cannot see."""
    for name in ("nodes", "gpus_per_node", "cpus_per_gpu", "parallel"):
        if (number := getattr(args, name)) is not None and number < 1:
            raise failure(f"--{name.replace('_', '-')} {number}: at least 1.")
    if args.max_requeues < 0:
        raise failure(f"--max-requeues {args.max_requeues}: at least 0.")
    if bool(args.sweep) == bool(args.train_args):
        raise failure("Give either --sweep FILE, or -- and the arguments of train_net.py.")
    if args.executor == "local" and (args.sweep or args.nodes > 1):
        raise failure(
            "--executor local takes one machine and one run; for a sweep: tools/sweep.py FILE --run."
        )
    ours = [word for word in args.train_args if word.partition("=")[0] in OURS]
    if ours:
        raise failure(f"Leave out {ours[0]}: --nodes and --gpus-per-node say it.")


def check_training(args: argparse.Namespace) -> None:
    """Let train_net.py read its arguments now: in the queue a mistake would show much later."""
    import yaml

    words = ["--dry-run", "--num-machines", str(args.nodes), "--num-gpus", str(args.gpus_per_node)]
    words = [sys.executable, str(TRAIN_NET), *words, *args.train_args]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise failure(f"train_net.py: {lines[-1].removeprefix('error: ')}")
    batch, processes = yaml.safe_load(done.stdout)["SOLVER"]["IMS_PER_BATCH"], args.nodes * args.gpus_per_node
    if batch % processes:
        raise failure(f"SOLVER.IMS_PER_BATCH {batch} does not divide by {processes} GPUs.")


def find_jobs(args: argparse.Namespace) -> list:
    """One, or those of the sweep that are not finished."""
    from rethink_pretrain.analysis.sweeps import read_state, read_sweep
    from rethink_pretrain.engine.slurm import TrainJob

    if not args.sweep:
        check_training(args)
        local = {"patience": 0.0} if args.executor == "local" else {}  # nobody there starts it again
        return [TrainJob([str(TRAIN_NET), *args.train_args], **local)]
    kinds = [(run, read_state(run.output).kind) for run in read_sweep(args.sweep)]
    jobs = [
        TrainJob([str(TRAIN_NET), "--config-file", str(run.config), *run.opts], resume=kind == "unfinished")
        for run, kind in kinds
        if kind != "finished"
    ]
    if not jobs:
        raise failure(f"All {len(kinds)} runs of {args.sweep} are finished.")
    return jobs


def launch(args: argparse.Namespace) -> None:
    """Check, then print or submit."""
    from rethink_pretrain.engine import slurm

    check_flags(args)
    names = set(slurm.Resources._fields) - {"minutes"}
    fields = {name: value for name, value in vars(args).items() if name in names}
    resources = slurm.Resources(minutes=slurm.parse_minutes(args.time), **fields)
    slurm.import_submitit()
    jobs = find_jobs(args)
    if args.dry_run:
        print(slurm.sbatch_script(resources, args.log_dir, len(jobs), args.parallel), end="")
        return
    options = {"executor": args.executor, "max_requeues": args.max_requeues, "parallel": args.parallel}
    handles = slurm.submit(jobs, resources, args.log_dir, **options)
    for handle in handles:
        print(f"Submitted {handle.job_id}; log: {os.path.relpath(handle.paths.stdout)}", flush=True)
    if args.executor == "local" and handles[0].exception() is not None:
        raise failure(f"The job failed; all it said is in {os.path.relpath(handles[0].paths.stdout)}.")


def failure(message: str) -> Exception:
    """For one line on stderr."""
    from rethink_pretrain.errors import UserError

    return UserError(message)


@tool()
def main() -> None:
    """Submit."""
    args = parse_args()
    launch(args)


if __name__ == "__main__":
    main()
