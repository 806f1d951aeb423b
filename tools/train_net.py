#!/usr/bin/env python
"""Train or evaluate a detector: tools/train_net.py --config-file configs/scratch_6x.yaml --num-gpus 8"""

import argparse
import os
import sys

OWN_DATA = ("train_json", "train_images", "val_json", "val_images")


def parse_args() -> argparse.Namespace:
    """The host's flags, --overlay, --dry-run and four for data of the user's own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="a file of configs/")
    parser.add_argument("--overlay", action="append", default=[], metavar="NAME", help="of configs/_overlay")
    for flag in OWN_DATA:
        parser.add_argument(f"--{flag.replace('_', '-')}", metavar="PATH", help="your data: give all four")
    parser.add_argument("--resume", action="store_true", help="continue the run in OUTPUT_DIR")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS")
    parser.add_argument("--trust-pickle", action="store_true", help="let weight files run code")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config as YAML and exit")
    parser.add_argument("--num-gpus", type=int, default=1, help="GPUs per machine, one process each")
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0, help="of this machine, from 0")
    parser.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT where several machines meet")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override config keys")
    args = parser.parse_args()
    own = {f"RETHINK.DATA.{flag.upper()}": getattr(args, flag) for flag in OWN_DATA if getattr(args, flag)}
    own |= {"RETHINK.TRUST_PICKLE": "True"} if args.trust_pickle else {}
    args.opts = [word for pair in own.items() for word in pair] + args.opts
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


def main() -> None:
    """Check everything in this process first, so that a mistake is one line and not one per GPU."""
    args = parse_args()
    # Threads that spin for long while they wait make a CPU step several times slower beside a busy process.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from rethink_pretrain.errors import one_line_errors

    with one_line_errors():
        cfg, processes = configure(args)
        from rethink_pretrain.engine import describe_recipe, format_recipe, launch

        if args.dry_run:
            recipe = format_recipe(describe_recipe(cfg, processes.total))
            print("# " + recipe.replace("\n", "\n# "), cfg.dump(), sep="\n", end="")
            return
        machines = (args.num_machines, args.machine_rank, args.dist_url)
        launch(run, (cfg, args), processes, cfg.MODEL.DEVICE, *machines)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("Stopped. --resume goes on from the last checkpoint.", file=sys.stderr)
        raise SystemExit(130) from None
