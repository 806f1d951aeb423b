#!/usr/bin/env python
"""Pre-train a detector's backbone as a classifier, and keep its weights for MODEL.WEIGHTS.

    python tools/pretrain_backbone.py --config-file configs/extra/pretrain_R50_gn.yaml --num-gpus 8 \\
        --train-images imagenet/train --val-images imagenet/val

The folders hold a folder of pictures for each class. OUTPUT_DIR/backbone.pth also tells what the training
took, which a comparison charges.
"""

import argparse
import os
import sys

FOLDERS = ("train_images", "val_images")


def parse_args() -> argparse.Namespace:
    """The flags of train_net.py that concern training, and two for the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of a classifier")
    parser.add_argument("--overlay", action="append", default=[], metavar="NAME", help="of configs/_overlay")
    for flag in FOLDERS:
        parser.add_argument(f"--{flag.replace('_', '-')}", metavar="DIR", help="a folder for each class")
    parser.add_argument("--resume", action="store_true", help="continue the run in OUTPUT_DIR")
    parser.add_argument("--num-gpus", type=int, default=1, help="GPUs per machine, one process each")
    parser.add_argument("--num-machines", type=int, default=1)
    parser.add_argument("--machine-rank", type=int, default=0, help="of this machine, from 0")
    parser.add_argument("--dist-url", default="auto", help="tcp://HOST:PORT where several machines meet")
    parser.add_argument("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="override config keys")
    args = parser.parse_args()
    given = {f"RETHINK.CLASSIFIER.{flag.upper()}": getattr(args, flag) for flag in FOLDERS}
    args.opts = [word for pair in given.items() if pair[1] for word in pair] + args.opts
    args.eval_only = False  # which the host asks for
    return args


def run(cfg, args: argparse.Namespace) -> None:
    """One process of the run."""
    from rethink_pretrain.engine import start
    from rethink_pretrain.engine.pretraining import pretrain

    start(cfg, args)
    pretrain(cfg, args.resume)


def main() -> None:
    """Check everything in this process first, so that a mistake is one line and not one per GPU."""
    args = parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # see train_net.py
    from rethink_pretrain.errors import one_line_errors

    with one_line_errors():
        from rethink_pretrain.config import load_config
        from rethink_pretrain.engine import find_processes, launch, prepare
        from rethink_pretrain.engine.pretraining import check_is_classifier

        cfg = load_config(args.config_file, args.overlay, args.opts)
        check_is_classifier(cfg)
        processes = find_processes(args.num_gpus, args.num_machines)
        args.resume = prepare(cfg, args.config_file, processes, resume=args.resume)
        machines = (args.num_machines, args.machine_rank, args.dist_url)
        launch(run, (cfg, args), processes, cfg.MODEL.DEVICE, *machines)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("Stopped. --resume goes on from the last checkpoint.", file=sys.stderr)
        raise SystemExit(130) from None
