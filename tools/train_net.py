#!/usr/bin/env python
"""Train or evaluate a detector: tools/train_net.py --config-file configs/scratch_6x.yaml --num-gpus 8"""

import argparse
import os

from rethink_pretrain import command_line

OWN_DATA = ("TRAIN_JSON", "TRAIN_IMAGES", "VAL_JSON", "VAL_IMAGES")


def parse_args() -> argparse.Namespace:
    """The host's flags, --overlay, --dry-run and four for data of the user's own."""
    parser = argparse.ArgumentParser(description=__doc__)
    command_line.add_config_flags(parser)
    command_line.add_key_flags(parser, OWN_DATA, "PATH", "your data: give all four")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS")
    command_line.add_trust_flag(parser)
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config as YAML and exit")
    command_line.add_run_flags(parser)
    command_line.add_opts(parser)
    args = parser.parse_args()
    trust = ["RETHINK.TRUST_PICKLE", "True"] if args.trust_pickle else []
    args.opts = command_line.as_opts(args, "RETHINK.DATA", OWN_DATA) + trust + args.opts
    return args


def run(cfg, args: argparse.Namespace) -> None:
    """One process of the run."""
    from rethink_pretrain.engine import evaluate, start, train

    start(cfg, args)
    (evaluate if args.eval_only else train)(cfg, args.resume)


def configure(args: argparse.Namespace):
    """The config of this run, checked against this machine, and the processes it has."""
    from rethink_pretrain.config import load_config
    from rethink_pretrain.engine import complete, find_processes, prepare

    cfg = load_config(args.config_file, args.overlay, args.opts)
    processes = find_processes(args.num_gpus, args.num_machines)
    if args.dry_run:
        complete(cfg, args.config_file, processes)
    else:
        args.resume = prepare(cfg, args.config_file, processes, resume=args.resume, eval_only=args.eval_only)
    return cfg, processes


@command_line.tool("Stopped. --resume goes on from the last checkpoint.")
def main() -> None:
    """Check everything in this process first, so that a mistake is one line and not one per GPU."""
    args = parse_args()
    # Threads that spin for long while they wait make a CPU step several times slower beside a busy process.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    cfg, processes = configure(args)
    from rethink_pretrain.engine import describe_recipe, format_recipe, launch

    if args.dry_run:
        recipe = format_recipe(describe_recipe(cfg, processes.total))
        print("# " + recipe.replace("\n", "\n# "), cfg.dump(), sep="\n", end="")
        return
    machines = (args.num_machines, args.machine_rank, args.dist_url)
    launch(run, (cfg, args), processes, cfg.MODEL.DEVICE, *machines)


if __name__ == "__main__":
    main()
