#!/usr/bin/env python
"""Weights of torchvision, timm, MoCo and others for MODEL.WEIGHTS: tools/convert_weights.py IN OUT.pth

Takes ResNet-18, 34, 50, 101, 152 and ResNeXt by torchvision's names, be it classifiers or self-supervised
encoders, and writes beside OUT.pth the overlay with pixel values, stride and norm: train_net.py --overlay.
--images, --instances and --pixels say what their pre-training has seen, so that a comparison can charge it.
"""

import argparse
import logging
import math
import shlex
from collections import Counter
from pathlib import Path

from rethink_pretrain.command_line import add_trust_flag, tool

COUNTS = ("images", "instances", "pixels")
# Spelt out here so that --help needs no torch; a test compares them with the package's.
LAYOUTS = ("auto", "torchvision", "timm", "moco", "simsiam", "backbone")
NORMS = ("SyncBN", "FrozenBN", "BN")
COUNTER = "num_batches_tracked"  # of each BatchNorm


def parse_args() -> argparse.Namespace:
    """Two files, and what the source cannot tell about itself."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    parser.add_argument("source", metavar="IN", help=".pth, .pth.tar, .safetensors or .pkl")
    parser.add_argument("output", type=Path, metavar="OUT.pth")
    parser.add_argument(
        "--layout", default="auto", choices=LAYOUTS, help="which names to look for (%(default)s)"
    )
    norm_help = "what BatchNorm becomes in the overlay (%(default)s); GroupNorm stays"
    parser.add_argument("--norm", default="SyncBN", choices=NORMS, help=norm_help)
    overlay_help = "another name for the overlay than init_OUT.yaml beside OUT.pth"
    parser.add_argument("--overlay", type=Path, metavar="FILE.yaml", help=overlay_help)
    parser.add_argument(
        "--c4", action="store_true", help="for detectors without FPN that have res5 in their heads"
    )
    for name in COUNTS:
        parser.add_argument(
            f"--{name}", type=float, metavar="N", help="of its pre-training, every visit counted"
        )
    parser.add_argument("--recipe", metavar="TEXT", help="one line about its pre-training")
    parser.add_argument("--force", action="store_true", help="replace files that are there already")
    add_trust_flag(parser)
    args = parser.parse_args()
    told = [value for value in map(vars(args).get, COUNTS) if value is not None]
    if not all(0 <= value < math.inf for value in told):
        parser.error("--images, --instances and --pixels are counts")
    if args.images is None and (told or args.recipe):
        parser.error("--instances, --pixels and --recipe need --images")
    return args


def pretraining(args: argparse.Namespace, about: str) -> dict[str, float | str]:
    """The counts that were given; {} without."""
    if args.images is None:
        return {}
    counts = {name: vars(args)[name] for name in COUNTS if vars(args)[name] is not None}
    return {**counts, "recipe": args.recipe or about}


def check_name(weights: str) -> None:
    """The doctor knows the host's files by their names, and would take this for one of them."""
    from rethink_pretrain.engine.doctor.weights import find_profile
    from rethink_pretrain.errors import UserError

    profile = find_profile(weights)
    if profile and (profile.image_format, profile.stride_in_1x1) != ("RGB", False):
        raise UserError(
            f"{weights}: by this name the doctor knows weights of the host for other images. Choose another."
        )


def convert(args: argparse.Namespace) -> None:
    """Write both files, and say what is in them."""
    from rethink_pretrain.checkpoint.convert import (
        check_outputs,
        convert_file,
        overlay_text,
        write_converted,
        write_overlay,
    )
    from rethink_pretrain.files import sha256_of

    overlay = args.overlay or args.output.with_name(f"init_{args.output.stem}.yaml")
    weights = str(args.output.resolve())  # so that a run may start in any folder
    check_outputs(Path(args.source), args.output, overlay, args.force)
    check_name(weights)
    converted = convert_file(args.source, args.layout, c4=args.c4, trust_pickle=args.trust_pickle)
    digest = sha256_of(args.source)
    about = f"{Path(args.source).name} (sha256 {digest[:16]}), by tools/convert_weights.py"
    text = overlay_text(converted.network, weights, about, args.norm)
    write_converted(args.output, converted.weights, about, pretraining(args, about))
    write_overlay(overlay, text)
    report(args, converted, overlay, digest)


def report(args: argparse.Namespace, converted, overlay: Path, digest: str) -> None:
    """What was found, what was left, and how to go on."""
    network, prefix = converted.network, converted.prefix
    groups = f", {network.num_groups} groups of {network.width_per_group}" if network.num_groups > 1 else ""
    norm = "BN, with statistics" if network.norm == "BN" else "GN, taken to have 32 groups"
    print(f"{args.source}: sha256 {digest}")
    print(f"layout: {converted.layout}{f', names begin with {prefix!r}' if prefix else ''}")
    print(f"network: depth {network.depth}{groups}; norm {norm}")
    print(
        f"weights: {args.output}, {len(converted.weights)} tensors for {'C4' if args.c4 else 'FPN'} detectors"
    )
    print(f"dropped: {describe_dropped(converted.dropped, prefix) or 'nothing'}")
    print(f"overlay: {overlay}")
    config = "YOUR_C4_CONFIG.yaml" if args.c4 else "configs/finetune_1x.yaml"
    command = ("python", "tools/train_net.py", "--config-file", config, "--overlay", str(overlay))
    print(f"use: {shlex.join(command)}")


def describe_dropped(names: list[str], prefix: str, limit: int = 8) -> str:
    """The modules that they are of and how many of each; `prefix` is that of the backbone."""
    from rethink_pretrain.errors import one_line

    counts = Counter(module_of(name, prefix) for name in names)
    parts = [f"{one_line(module[:80])} ({count})" for module, count in counts.most_common(limit)]
    more = f" and {len(counts) - limit} more" if len(counts) > limit else ""
    return ", ".join(parts) + more


def module_of(name: str, prefix: str) -> str:
    """What the name of a dropped tensor is summed up under."""
    if name.startswith(prefix) and name.endswith(COUNTER):
        return COUNTER
    start = prefix if name.startswith(prefix) else "module." if name.startswith("module.") else ""
    return start + name[len(start) :].partition(".")[0]


@tool()
def main() -> None:
    """Only our own warnings."""
    args = parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    logging.getLogger("rethink_pretrain").setLevel(logging.WARNING)
    convert(args)


if __name__ == "__main__":
    main()
