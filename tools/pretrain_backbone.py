#!/usr/bin/env python
"""Pre-train a detector's backbone as a classifier, and keep its weights for MODEL.WEIGHTS.

    python tools/pretrain_backbone.py --config-file configs/extra/pretrain_R50_gn.yaml --num-gpus 8 \\
        --train-images imagenet/train --val-images imagenet/val

The folders hold a folder of pictures for each class. OUTPUT_DIR/backbone.pth also tells what the training
took, which a comparison charges.
"""

import argparse
import os

from rethink_pretrain import command_line

FOLDERS = ("TRAIN_IMAGES", "VAL_IMAGES")


def parse_args() -> argparse.Namespace:
    """The flags of train_net.py that concern training, and two for the pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command_line.add_config_flags(parser)
    command_line.add_key_flags(parser, FOLDERS, "DIR", "a folder for each class")
    command_line.add_run_flags(parser)
    command_line.add_opts(parser)
    args = parser.parse_args()
    args.opts = command_line.as_opts(args, "RETHINK.CLASSIFIER", FOLDERS) + args.opts
    args.eval_only = False  # which the host asks for
    return args


def run(cfg, args: argparse.Namespace) -> None:
    """One process of the run."""
    from rethink_pretrain.engine import start
    from rethink_pretrain.engine.pretraining import pretrain

    start(cfg, args)
    pretrain(cfg, args.resume)


@command_line.tool("Stopped. --resume goes on from the last checkpoint.")
def main() -> None:
    """Check everything in this process first, so that a mistake is one line and not one per GPU."""
    args = parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # see train_net.py
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
    main()
