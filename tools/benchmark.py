#!/usr/bin/env python
"""Time training, loading and evaluation beside stock Detectron2: tools/benchmark.py all --against stock

Stock is the Detectron2 that is installed, with its own model, mapper, loader, trainer and pycocotools. It and
ours take turns on the same made data and the same initial weights, so that a busy machine slows both; what
warms up does not count. A part stops with an error where the two do not compute the same. `all` writes one
json for each part, and takes about ten minutes on two CPU cores.
"""

import argparse
import logging
import os
import sys
import tempfile
from pathlib import Path

from rethink_pretrain.command_line import tool

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("train", "loader", "eval", "masks", "layers", "subset", "startup", "memory", "norm")
FIGURES = (".png", ".pdf", ".svg")


def parse_args() -> argparse.Namespace:
    """What to measure, and where to write it."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    add = parser.add_argument
    add("part", choices=(*PARTS, "all"))
    add("--against", choices=("stock",), help="the other contestant; without it only ours is measured")
    add("--json", type=Path, metavar="FILE", help="write what was found; of `all` a new folder of files")
    add("--figure", type=Path, metavar="PNG", help="draw the ratios")
    add("--config-file", type=Path, metavar="FILE", help="of the train part, in place of its own two")
    add("--overlay", action="append", metavar="NAME", help="of the fast contestant of train (fast)")
    add("--images-per-batch", type=int, metavar="N", help="of the train part")
    add("--steps", type=int, metavar="N", help="of the train part, for each contestant")
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--full", action="store_true", help="the sizes and rounds of results/bench: three quarters of an hour"
    )
    size.add_argument("--tiny", action="store_true", help="as little as possible, to see whether all runs")
    add("--opts", nargs="*", default=[], metavar="KEY VALUE", help="of the config of the train part")
    args = parser.parse_args()
    if args.figure and not args.against:
        parser.error("--figure draws ratios, which need --against stock")
    if any(number is not None and number < 1 for number in (args.images_per_batch, args.steps)):
        parser.error("--images-per-batch and --steps are 1 or more")
    return args


def build_settings(args: argparse.Namespace, folder: Path):
    """`args` as the benchmark's settings."""
    from dataclasses import replace

    from rethink_pretrain.engine.benchmark import Settings

    settings = Settings(
        folder,
        ROOT,
        stock=args.against == "stock",
        config_file=args.config_file,
        overlays=tuple(args.overlay or ("fast",)),
        opts=tuple(args.opts),
        images_per_batch=args.images_per_batch,
    )
    settings = settings.tiny() if args.tiny else settings.full() if args.full else settings
    steps = args.steps
    if steps:
        return replace(
            settings, toy_steps=steps, large_steps=steps, gpu_steps=steps, train_budget=float("inf")
        )
    return settings


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse what cannot be written before it is measured, and make the folders."""
    from rethink_pretrain.errors import UserError

    if args.json and args.part != "all" and args.json.is_dir():
        raise UserError(f"--json: {args.json} is a folder. Name a file in it.")
    if args.figure and args.figure.suffix not in FIGURES:
        raise UserError(f"--figure: {args.figure} ends in none of {', '.join(FIGURES)}.")
    json_folder = args.json if args.json is None or args.part == "all" else args.json.parent
    for flag, folder in (("--json", json_folder), ("--figure", args.figure and args.figure.parent)):
        if folder is None:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{flag}: {folder} cannot be made ({error.strerror}). Name another place."
            ) from None
        if not os.access(folder, os.W_OK):
            raise UserError(f"{flag}: {folder} cannot be written to. Name another place.")


def run(args: argparse.Namespace, folder: Path) -> None:
    """Measure, show, write."""
    from rethink_pretrain.engine.benchmark import measure
    from rethink_pretrain.files import write_json

    check_outputs(args)
    settings = build_settings(args, folder)
    results = []
    for part in PARTS if args.part == "all" else [args.part]:
        print(f"Measuring {part} ...", file=sys.stderr, flush=True)
        results.append(measure(part, settings))
        if args.json and args.part == "all":
            write_json(args.json / f"{part}.json", results[-1])
    if args.json and args.part != "all":
        write_json(args.json, results[0])
    show(results, args.figure)


def show(results: list[dict], figure: Path | None) -> None:
    """The table, and the figure if there is to be one."""
    from rethink_pretrain.analysis.bench import benchmark_table, ratio_bars
    from rethink_pretrain.analysis.bench_figure import plot_ratios

    rows = [row for result in results for row in result["rows"]]
    print("\n".join(benchmark_table(rows)))
    if figure:
        machine = results[0]["machine"]
        what = ", ".join([f"{machine['cores']} cores of {machine['cpu']}", *machine["gpus"]])
        plot_ratios(ratio_bars(rows), figure, f"{what}; Detectron2 {machine['detectron2']}")


@tool()
def main() -> None:
    """In a folder of its own, which goes at the end."""
    args = parse_args()
    # Threads that spin while they wait make steps several times slower when another process is busy.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        run(args, Path(temporary))


if __name__ == "__main__":
    main()
