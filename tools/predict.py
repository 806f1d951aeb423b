#!/usr/bin/env python
"""Objects in any images: tools/predict.py IMAGE_OR_FOLDER... --run output/scratch_6x --output found/

Writes every image with what was found, predictions.json in COCO's results format (all scores; image ids from
1) and images.json, which such a list refers to: pycocotools reads both, and so does tools/visualize.py.
"""

import argparse
import logging
from pathlib import Path

from rethink_pretrain.command_line import add_config_flags, add_trust_flag, tool


def parse_args() -> argparse.Namespace:
    """Images, model, threshold; what is left over are config keys."""
    summary, _, rest = __doc__.partition("\n\n")
    usage = (
        "%(prog)s IMAGE_OR_FOLDER... (--run DIR | --config-file FILE --weights FILE) --output DIR "
        "[options] [KEY VALUE...]"
    )
    parser = argparse.ArgumentParser(description=summary, epilog=rest, usage=usage)
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE_OR_FOLDER", help="a folder at any depth"
    )
    parser.add_argument("--run", type=Path, metavar="DIR", help="OUTPUT_DIR: its config and last checkpoint")
    add_config_flags(parser, required=False)
    parser.add_argument("--weights", metavar="FILE", help="of a detector that was trained with that config")
    score_help = "of the objects that are drawn (%(default)s)"
    parser.add_argument("--min-score", type=float, default=0.5, metavar="S", help=score_help)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="made if it is not there")
    add_trust_flag(parser)
    # Not a positional of its own: argparse would fill it before it has seen the options.
    args, args.opts = parser.parse_known_args()
    if unknown := [word for word in args.opts if word.startswith("--")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if bool(args.run) == bool(args.config_file) or bool(args.weights) != bool(args.config_file):
        parser.error("give either --run, or --config-file and --weights")
    if args.trust_pickle:
        args.opts += ["RETHINK.TRUST_PICKLE", "True"]
    return args


def predict(args: argparse.Namespace) -> None:
    """Load the model, go through the images, say what was found."""
    from rethink_pretrain.config import load_config
    from rethink_pretrain.engine.predict import Predictor, find_images, predict_files
    from rethink_pretrain.engine.sources import load_run

    files = find_images(args.images, args.output)
    if args.run:
        cfg = load_run(args.run, args.overlay, args.opts)
    else:
        cfg = load_config(args.config_file, args.overlay, [*args.opts, "MODEL.WEIGHTS", args.weights])
    num_images, num_drawn = predict_files(
        Predictor(cfg, args.run), files, args.output, min_score=args.min_score
    )
    num_left_out = len(files) - num_images
    left_out = f", {num_left_out} file{'s' * (num_left_out != 1)} left out" if num_left_out else ""
    found = f"{num_images} images with {num_drawn} objects of score >= {args.min_score:g}"
    print(f"{args.output}: {found}{left_out}")


@tool("Stopped. There is no predictions.json yet.")
def main() -> None:
    """Only our own warnings, not what the host logs while it loads."""
    args = parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger("rethink_pretrain").setLevel(logging.WARNING)
    predict(args)


if __name__ == "__main__":
    main()
