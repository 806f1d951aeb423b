#!/usr/bin/env python
"""See a data set, or the mistakes of a detector.

    python tools/visualize.py data --dataset toy_train --output data.html
    python tools/visualize.py data --json train.json --images train/ --output data.html
    python tools/visualize.py predictions --run output/scratch_6x --output mistakes.html
    python tools/visualize.py predictions --json val.json --images val/ --results results.json --output DIR

An output that ends in .html is one page with everything in it; any other is a folder of PNG files.
"""

import argparse
from pathlib import Path

from rethink_pretrain.command_line import tool


def parse_args() -> argparse.Namespace:
    """What to look at."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="a data set with its annotations, counts per category")
    data.add_argument("--dataset", metavar="NAME", help="a registered data set, such as toy_train@100")
    predictions = commands.add_parser("predictions", help="mistakes by kind, worst and best images")
    predictions.add_argument("--run", metavar="DIR", help="OUTPUT_DIR of an evaluated run")
    predictions.add_argument("--results", metavar="R", help="predictions in COCO's results format")
    predictions.add_argument("--min-score", type=float, default=0.5, metavar="S", help="(%(default)s)")
    for command in (data, predictions):
        command.add_argument("--json", metavar="J", help="annotations in COCO's format")
        command.add_argument("--images", metavar="DIR", help="folder of their images")
        command.add_argument("--num-images", type=int, default=24, metavar="N", help="(%(default)s)")
        command.add_argument("--output", required=True, metavar="OUT", help="FILE.html, or a folder")
    args = parser.parse_args()
    one = args.dataset if args.command == "data" else args.run
    files = [args.json, args.images] + ([args.results] if args.command == "predictions" else [])
    if any(files) if one else not all(files):
        wanted = "--dataset, or --json and --images"
        if args.command == "predictions":
            wanted = "--run, or --json, --images and --results"
        commands.choices[args.command].error(f"give either {wanted}")
    if args.num_images < 1:
        commands.choices[args.command].error("--num-images has to be 1 or more")
    return args


def look_at_data(args: argparse.Namespace) -> tuple[str, str, list]:
    """Title, subtitle and sections."""
    from rethink_pretrain.analysis import looking
    from rethink_pretrain.data.datasets.coco_json import read_coco_json
    from rethink_pretrain.engine.sources import read_dataset, read_picture

    if args.dataset:
        document, folder = read_dataset(args.dataset)
    else:
        folder = Path(args.images)
        document, _ = read_coco_json(Path(args.json), folder)
    sections = looking.look_at_data(document, lambda name: read_picture(folder / name), args.num_images)
    return args.dataset or args.json, looking.describe(document), sections


def look_at_predictions(args: argparse.Namespace) -> tuple[str, str, list]:
    """Title, subtitle and sections."""
    from rethink_pretrain.analysis import looking
    from rethink_pretrain.analysis.detection_errors import read_results
    from rethink_pretrain.data.datasets.coco_json import read_coco_json
    from rethink_pretrain.engine.setup import register_datasets
    from rethink_pretrain.engine.sources import find_results, load_run, read_dataset, read_picture

    if args.run:
        cfg = load_run(Path(args.run))
        results = read_results(find_results(Path(args.run)))
        register_datasets(cfg)
        name = cfg.DATASETS.TEST[0]
        document, folder = read_dataset(name)
    else:
        results, folder, name = read_results(Path(args.results)), Path(args.images), args.json
        document, _ = read_coco_json(Path(args.json), folder)
    sections = looking.look_at_predictions(
        document,
        results,
        lambda name: read_picture(folder / name),
        num_images=args.num_images,
        min_score=args.min_score,
    )
    return f"Mistakes of {args.run or args.results}", f"{name}: {looking.describe(document)}", sections


@tool()
def main() -> None:
    """Look, write, say where it is."""
    args = parse_args()
    from rethink_pretrain.analysis.page import write_page, write_pictures

    look = look_at_data if args.command == "data" else look_at_predictions
    title, subtitle, sections = look(args)
    if args.output.endswith(".html"):
        write_page(args.output, title, sections, subtitle=subtitle)
        print(args.output)
    else:
        number = write_pictures(args.output, sections)
        print(f"{number} picture{'s' * (number != 1)} in {args.output}")


if __name__ == "__main__":
    main()
