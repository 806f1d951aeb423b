#!/usr/bin/env python
"""Scratch or pre-trained, for your data: tools/plan.py --train-json my.json --gpus 8

Places the data on the scale of the paper's sets, says what the paper found there and where it found nothing,
and what both trainings would take. --probe measures the speed on this machine first.
"""

import argparse
import logging
import math
import shlex
import sys
import textwrap
from pathlib import Path

from rethink_pretrain.command_line import tool

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    """The data, the machine, and how fast it is."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    add = parser.add_argument
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--train-json", metavar="FILE", help="training annotations in COCO's format")
    data.add_argument("--dataset", metavar="NAME", help="a registered set, such as coco_2017_train@10k")
    add("--train-images", metavar="DIR", help="folder of their images; only --probe looks at them")
    add("--gpus", type=whole, default=8, metavar="N", help="(8)")
    add("--images-per-gpu", type=whole, default=2, metavar="N", help="(2)")
    speed = parser.add_mutually_exclusive_group()
    speed.add_argument("--seconds-per-iteration", type=positive, metavar="S", help="of gpus x images-per-gpu")
    speed.add_argument("--probe", action="store_true", help="measure it: a few iterations of both trainings")
    add("--config-file", metavar="FILE", help="measure this model instead of the suggested ones")
    add("--price-per-gpu-hour", type=positive, metavar="P", help="adds costs, in P's currency")
    add("--json", metavar="OUT", help="write all of it as JSON")
    args = parser.parse_args()
    if args.config_file and not args.probe:
        parser.error("--config-file is what --probe measures: give both")
    if args.train_images and args.dataset:
        parser.error("--train-images belongs to --train-json; a registered set knows its own")
    return args


def whole(text: str) -> int:
    """A whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def positive(text: str) -> float:
    """A finite number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def read_data(args: argparse.Namespace) -> dict:
    """A document in COCO's form."""
    from rethink_pretrain.analysis.data_facts import read_document

    if args.train_json:
        return read_document(args.train_json)
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from rethink_pretrain.data import check_datasets, register_named

    register_named([args.dataset])
    check_datasets([args.dataset])
    records = DatasetCatalog.get(args.dataset)
    names = MetadataCatalog.get(args.dataset).get("thing_classes", ())
    objects = (
        {**a, "image_id": number} for number, r in enumerate(records) for a in r.get("annotations", ())
    )
    return {
        "images": [{**record, "id": number} for number, record in enumerate(records)],
        "annotations": list(objects),
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
    }


def probe_speed(args: argparse.Namespace, document: dict, facts, routes: tuple):
    """Of both routes on one GPU, or the CPU, of this machine."""
    from rethink_pretrain.analysis.planner import Speed

    if args.config_file:
        found = [probe_config(args, document, facts, args.config_file)] * 2
    else:
        found = [probe_config(args, document, facts, ROOT / "configs" / route.config) for route in routes]
    seconds = [result.seconds / result.batch for result in found]
    first = found[0]
    what = f" of {args.config_file}" if args.config_file else ""
    times = " and ".join(f"{s:.3g}" for s in dict.fromkeys(result.seconds for result in found))
    source = (
        f"measured here, one process on {first.device}{what}: {times} s per iteration of {first.batch} "
        f"{'image' if first.batch == 1 else 'images'} (median of {first.steps}, {first.data})"
    )
    return Speed(*seconds, source, first.unit)


def probe_config(args: argparse.Namespace, document: dict, facts, config: str | Path):
    """One measurement."""
    from rethink_pretrain.config import load_config
    from rethink_pretrain.engine.probe import RandomImages, own_images, probe
    from rethink_pretrain.errors import UserError

    opts = [] if facts.masks else ["MODEL.MASK_ON", "False"]
    cfg, batch = load_config(config, opts=opts), args.images_per_gpu
    if args.train_images:
        with own_images(cfg, document, args.train_images, batch) as (cfg, loader):
            return probe(cfg, loader, batch)
    size = facts.resized(max(cfg.INPUT.MIN_SIZE_TRAIN), cfg.INPUT.MAX_SIZE_TRAIN)
    if size is None:
        raise UserError("The images' width and height are not in the file: --probe needs --train-images.")
    return probe(cfg, RandomImages(cfg, batch, size, round(facts.objects_per_image) or 1), batch)


def find_speed(args: argparse.Namespace, document: dict, facts, row, routes: tuple, paper):
    """Given, measured or published."""
    from rethink_pretrain.analysis.planner import given_speed, published_speed

    if args.seconds_per_iteration:
        return given_speed(args.seconds_per_iteration, args.images_per_gpu)
    if args.probe:
        return probe_speed(args, document, facts, routes)
    return published_speed(paper, row)


def commands(args: argparse.Namespace, facts, routes: tuple) -> list[list[str]]:
    """What to type, from the folder of the repository, each in parts that stand together."""
    outputs = [f"output/{Path(route.config).stem}" for route in routes]
    compare = ["python tools/compare_runs.py", *outputs, "--output report.html"]
    return [*(train_command(args, facts, route) for route in routes), compare]


def train_command(args: argparse.Namespace, facts, route) -> list[str]:
    """Of one route; paths that nobody gave are in capitals."""
    flags = {"--config-file": f"configs/{route.config}", "--num-gpus": str(args.gpus)}
    options = {"RETHINK.SCHEDULE": route.schedule}
    if route.drops:
        options["RETHINK.DROPS"] = str(route.drops)
    if args.gpus * args.images_per_gpu != 16:
        options["RETHINK.IMAGES_PER_GPU"] = str(args.images_per_gpu)
    if args.dataset:
        options["DATASETS.TRAIN"] = f"('{args.dataset}',)"
        options["RETHINK.IMAGES_PER_EPOCH"] = str(facts.images_with_objects)
    else:
        flags |= {"--train-json": args.train_json, "--train-images": args.train_images or "TRAIN_IMAGES"}
        flags |= {"--val-json": "VAL.json", "--val-images": "VAL_IMAGES"}
        # Of a registered set, who names it knows the kind of model.
        options |= {} if facts.masks else {"MODEL.MASK_ON": "False"}
    return ["python tools/train_net.py", *map(shlex.join, [*flags.items(), *options.items()])]


def fold(parts: list[str], width: int = 80) -> str:
    """A command in lines that a shell takes for one; none is longer than `width`, unless a part is."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(f"{lines[-1]} {part} \\") <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(f"    {part}")
    return " \\\n".join(lines)


def print_verdict(facts, verdict, rows: list) -> None:
    """The answer, then what it rests on, then what it does not."""
    from rich.table import Table

    console = build_console()
    console.print(verdict.sentence, style="bold")
    heading(console, "Your data and the paper's")
    count = f"{facts.images:,} images, {facts.images_with_objects:,} with objects; {facts.objects:,} objects"
    unused = len(facts.categories) - facts.used_categories
    console.print(f"{count}, {facts.crowds:,} crowds, {facts.used_categories} categories.")
    if unused:
        console.print(f"{unused} more categories are listed and have no object.")
    titles = ("", "set", "images", "objects/image", "categories", "random", "pre-trained")
    table = Table(*titles, box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    yours = (f"{facts.images_with_objects:,}", f"{facts.objects_per_image:.1f}", str(facts.used_categories))
    table.add_row("", "yours", *yours, "?", "?")
    for row in rows:
        measured = (f"{row.images:,}", f"{row.objects:.1f}", str(row.categories))
        ends = (f"{arm.value:.1f}" for arm in (row.random, row.pretrained))
        table.add_row(">" if row is verdict.row else "", row.name, *measured, *ends)
    console.print(table)
    match = "the row of your data" if verdict.certainty == "known" else "the nearest row"
    console.print(f"> {match}. Box AP at the end of the best training; mAP for VOC.")
    heading(console, "Why")
    bullets(console, verdict.reasons)
    heading(console, "Where the paper is silent")
    bullets(console, verdict.silent)


def print_trainings(args: argparse.Namespace, facts, verdict, routes: tuple, prices: list, speed) -> None:
    """Both side by side, and how to start them."""
    from rich.table import Table

    console = build_console()
    heading(console, "Two trainings")
    batch = args.gpus * args.images_per_gpu
    table = Table("", *(f"from {route.name} weights" for route in routes), box=None, pad_edge=False)
    rows = {
        "config": [f"configs/{route.config}" for route in routes],
        "RETHINK.SCHEDULE": [route.schedule for route in routes],
        f"iterations of {batch}": [f"{route.images / batch:,.0f}" for route in routes],
        "epochs of your data": [f"{route.epochs:,.1f}" for route in routes],
        f"hours on {args.gpus} {speed.unit}{'s' * (args.gpus > 1)}": [
            amount(price.hours) for price in prices
        ],
        f"{speed.unit}-hours": [amount(price.gpu_hours) for price in prices],
    }
    if args.price_per_gpu_hour:
        rows["cost"] = [amount(price.money) for price in prices]
    for title, cells in rows.items():
        table.add_row(title, *cells)
    console.print(table)
    kept = "epochs" if routes[0].schedule.endswith("ep") else "iterations"
    guess = "" if verdict.certainty == "known" else ": a guess of ours, to be checked on your validation set"
    if "schedule" in verdict.row.unpublished:
        guess = ": a guess of ours, because the paper does not publish its schedule"
    console.print(f"Length: the {kept} of row {verdict.row.name}{guess}.")
    console.print(
        f"Speed: {speed.source}. Without evaluations, and as if {speed.unit}s lost nothing to each other; "
        "making the pre-trained weights is not counted."
    )
    heading(console, "Commands")
    for parts in commands(args, facts, routes):
        print(fold(parts))  # to be copied


def amount(value: float) -> str:
    """With two digits or more."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def build_console():
    """80 columns or fewer."""
    from rich.console import Console

    width = Console().width if sys.stdout.isatty() else 80
    return Console(width=min(width, 80), highlight=False, markup=False)


def heading(console, text: str) -> None:
    """With a line above."""
    console.print(f"\n{text}", style="bold")


def bullets(console, lines: list[str]) -> None:
    """Each with its own hanging indent."""
    for line in lines:
        print(textwrap.fill(line, console.width, initial_indent="- ", subsequent_indent="  "))


def as_json(args: argparse.Namespace, facts, verdict, rows: list, routes: tuple, prices: list, speed) -> dict:
    """All that is printed, and every category."""
    trainings = [{**route._asdict(), **price._asdict()} for route, price in zip(routes, prices, strict=True)]
    counts = {key: value for key, value in facts._asdict().items() if key not in ("sizes", "categories")}
    counts["objects_per_image"] = facts.objects_per_image
    return {
        "data": {**counts, "categories": [category._asdict() for category in facts.categories]},
        "verdict": {**verdict._asdict(), "row": verdict.row.name},
        "scale": [as_plain(row) for row in rows],
        "trainings": trainings,
        "batch": args.gpus * args.images_per_gpu,
        "speed": speed._asdict(),
        "commands": [" ".join(parts) for parts in commands(args, facts, routes)],
    }


def as_plain(row) -> dict:
    """A row with its arms as objects."""
    return {k: v._asdict() if hasattr(v, "_asdict") else v for k, v in row._asdict().items()}


def run(args: argparse.Namespace) -> None:
    """Read, judge, measure, print, write."""
    from rethink_pretrain.analysis.data_facts import count_facts
    from rethink_pretrain.analysis.evidence import read_evidence
    from rethink_pretrain.analysis.paper import read_paper
    from rethink_pretrain.analysis.planner import place, plan_routes, price_of
    from rethink_pretrain.errors import UserError
    from rethink_pretrain.files import write_json
    from rethink_pretrain.solver.schedule import parse_length

    if args.json and not Path(args.json).resolve().parent.is_dir():
        raise UserError(f"The folder {Path(args.json).parent} does not exist.")
    paper = read_paper(ROOT / "results" / "paper.json")
    rows = read_evidence(paper, ROOT / "configs")
    document = read_data(args)
    facts = count_facts(document, args.train_json or args.dataset)
    verdict = place(facts, rows)
    routes = plan_routes(facts, verdict, rows, parse_length)
    speed = find_speed(args, document, facts, verdict.row, routes, paper)
    prices = [price_of(route, speed, args.gpus, args.price_per_gpu_hour) for route in routes]
    print_verdict(facts, verdict, rows)
    print_trainings(args, facts, verdict, routes, prices, speed)
    if args.json:
        write_json(Path(args.json), as_json(args, facts, verdict, rows, routes, prices, speed))


@tool()
def main() -> None:
    """A plan, or one line of error."""
    args = parse_args()
    logging.getLogger().setLevel(logging.ERROR)
    run(args)


if __name__ == "__main__":
    main()
