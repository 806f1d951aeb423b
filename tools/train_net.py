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
    overlay_help = "merge configs/_overlay/NAME.yaml on top"
    parser.add_argument("--overlay", action="append", default=[], metavar="NAME", help=overlay_help)
    for flag in OWN_DATA:
        own_help = f"your data, all four: sets RETHINK.DATA.{flag.upper()}"
        parser.add_argument(f"--{flag.replace('_', '-')}", metavar="PATH", help=own_help)
    parser.add_argument("--resume", action="store_true", help="continue the run in OUTPUT_DIR")
    parser.add_argument("--eval-only", action="store_true", help="evaluate MODEL.WEIGHTS")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config as YAML and exit")
    parser.add_argument("--num-gpus", type=int, default=1, help="GPUs per machine")
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0, help="of this machine, from 0")
    # One port per user: a process left over from an earlier run then shows as "address in use".
    port = 2**15 + 2**14 + os.getuid() % 2**14
    parser.add_argument("--dist-url", default=f"tcp://127.0.0.1:{port}", help="where the processes meet")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override config keys")
    args = parser.parse_args()
    own = {f"RETHINK.DATA.{flag.upper()}": getattr(args, flag) for flag in OWN_DATA if getattr(args, flag)}
    args.opts = [word for pair in own.items() for word in pair] + args.opts
    return args


def run(args: argparse.Namespace) -> None:
    """One process of the run."""
    from rethink_pretrain.engine import evaluate, start, train

    cfg = configure(args)
    start(cfg, args)
    (evaluate if args.eval_only else train)(cfg, args.resume)


def configure(args: argparse.Namespace):
    """The config of this run, checked against this machine."""
    from rethink_pretrain.config import load_config
    from rethink_pretrain.engine import prepare

    cfg = load_config(args.config_file, args.overlay, args.opts)
    if not args.dry_run:
        flags = {"resume": args.resume, "eval_only": args.eval_only}
        prepare(cfg, args.config_file, **flags, num_gpus=args.num_gpus, num_machines=args.num_machines)
    return cfg


def main() -> None:
    """Check everything in this process first, so that a mistake is one line and not one per GPU."""
    args = parse_args()
    # Threads that spin for long while they wait make a CPU step several times slower beside a busy process.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    from rethink_pretrain.errors import one_line_errors

    with one_line_errors():
        cfg = configure(args)
        if args.dry_run:
            print(cfg.dump(), end="")
            return
        from detectron2.engine import launch

        launch(run, args.num_gpus, args.num_machines, args.machine_rank, args.dist_url, args=(args,))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("Stopped. --resume goes on from the last checkpoint.", file=sys.stderr)
        raise SystemExit(130) from None
