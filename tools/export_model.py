#!/usr/bin/env python
"""A trained model for others: tools/export_model.py --run output/scratch_6x --output scratch_6x.safetensors

The file holds the weights, under the names of the model, and in its metadata, all as text: config (YAML),
iteration, categories (JSON), source and its sha256, and of a run its name, commit and versions. It holds no
optimizer, and nothing that could run. MODEL.WEIGHTS and --weights take it as they take any other.
"""

import argparse
import logging
from pathlib import Path

from rethink_pretrain.command_line import add_config_flags, add_trust_flag, tool


def parse_args() -> argparse.Namespace:
    """Model, weights and output; what is left over are config keys."""
    summary, _, rest = __doc__.partition("\n\n")
    usage = (
        "%(prog)s (--run DIR [--checkpoint FILE] | --config-file FILE --weights FILE) "
        "--output FILE [options] [KEY VALUE...]"
    )
    parser = argparse.ArgumentParser(description=summary, epilog=rest, usage=usage)
    parser.add_argument("--run", type=Path, metavar="DIR", help="OUTPUT_DIR: its config and last checkpoint")
    parser.add_argument("--checkpoint", metavar="FILE", help="another one of the run, such as model_best.pth")
    add_config_flags(parser, required=False)
    parser.add_argument("--weights", metavar="FILE", help="of a detector that was trained with that config")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="ends in .safetensors")
    parser.add_argument("--force", action="store_true", help="replace a file that is there already")
    add_trust_flag(parser)
    args, args.opts = parser.parse_known_args()
    if unknown := [word for word in args.opts if word.startswith("--")]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if bool(args.run) == bool(args.config_file) or bool(args.weights) != bool(args.config_file):
        parser.error("give either --run, or --config-file and --weights")
    if args.checkpoint and not args.run:
        parser.error("--checkpoint is one of a --run")
    if args.trust_pickle:
        args.opts += ["RETHINK.TRUST_PICKLE", "True"]
    return args


def export(args: argparse.Namespace) -> None:
    """Write the file, and say what is in it."""
    from rethink_pretrain.config import load_config
    from rethink_pretrain.engine.export_model import export_model, find_checkpoint
    from rethink_pretrain.engine.sources import load_run

    if args.run:
        cfg = load_run(args.run, args.overlay, args.opts)
        source = find_checkpoint(args.run, args.checkpoint)
    else:
        cfg, source = load_config(args.config_file, args.overlay, args.opts), args.weights
    num_parameters = export_model(cfg, source, args.output, run=args.run, force=args.force)
    megabytes = args.output.stat().st_size / 1e6
    print(f"{args.output}: {num_parameters:,} parameters of {source}, {megabytes:.1f} MB")


@tool("Stopped. Nothing was written.")
def main() -> None:
    """Only our own warnings, not what the host logs while it loads."""
    args = parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger("rethink_pretrain").setLevel(logging.WARNING)
    export(args)


if __name__ == "__main__":
    main()
