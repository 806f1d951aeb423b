#!/usr/bin/env python
"""Images, instances and pixels that detectors have seen, their pre-training included: the paper's figure 2.

    tools/count_samples.py --paper
    tools/count_samples.py --configs configs/scratch_6x.yaml configs/finetune_2x.yaml --figure samples.png
    tools/count_samples.py --runs output/scratch_6x output/finetune_2x --json samples.json

Every visit of an image counts. The lines below the table say where each number is from; what nothing tells
is "unknown".
"""

import argparse
import functools
import sys
from pathlib import Path

from rethink_pretrain.command_line import tool


def parse_args() -> argparse.Namespace:
    """Of what, and where to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--paper", action="store_true", help="the paper's figure, with the working")
    what.add_argument("--configs", nargs="+", metavar="CONFIG", help="what trainings of these would see")
    what.add_argument("--runs", nargs="+", metavar="RUN", help="what runs have seen, from their own counters")
    add = parser.add_argument
    add("--train-json", metavar="FILE", help="COCO-format annotations for --configs (the config's own set)")
    add("--json", type=Path, metavar="OUT", help="write the numbers")
    add("--figure", type=Path, metavar="PNG", help="draw the bars; .svg and .pdf work, too")
    args = parser.parse_args()
    if args.train_json and not args.configs:
        parser.error("--train-json goes with --configs")
    return args


def accounts_of_configs(paths: list[str], train_json: str | None) -> list:
    """An `Account` for each config file."""
    from rethink_pretrain.analysis.accounting import Account
    from rethink_pretrain.config import load_config

    stems = [Path(path).stem for path in paths]
    accounts = []
    for path, stem in zip(paths, stems, strict=True):
        cfg = load_config(path)
        name = stem if stems.count(stem) == 1 else path
        accounts.append(Account(name, [pretraining(cfg.MODEL.WEIGHTS), training(cfg, train_json)]))
    return accounts


def pretraining(weights: str):
    """Its `Phase`, from the name of the weights or from what their file tells."""
    from rethink_pretrain.analysis.accounting import pretraining_phase
    from rethink_pretrain.checkpoint.reading import pretraining_in, read_weights

    told = pretraining_in(read_weights(weights)) if weights and Path(weights).is_file() else None
    return pretraining_phase(weights, told)


def training(cfg, train_json: str | None):
    """Its `Phase`, from the length of the config and the means over its training images."""
    from rethink_pretrain.analysis.data_statistics import per_image, per_image_of_paper, training_phase

    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
    names = ", ".join(cfg.DATASETS.TRAIN)
    chosen = (cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS, keypoints)
    path = train_json or cfg.RETHINK.DATA.TRAIN_JSON
    images = images_of_json(path, *chosen) if path else images_of_sets(tuple(cfg.DATASETS.TRAIN), *chosen)
    if images:
        mean = per_image(images, resizing_of(cfg), f"{len(images):,} images of {path or names}")
    else:
        mean = per_image_of_paper(resizing_of(cfg), names)
    if cfg.INPUT.CROP.ENABLED:
        mean = mean._replace(source=f"{mean.source}, INPUT.CROP not counted")
    return training_phase(cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH, mean)


def resizing_of(cfg):
    """How the config resizes in training."""
    from rethink_pretrain.analysis.data_statistics import Resizing

    if cfg.RETHINK.AUGMENTATION == "lsj":
        return Resizing((cfg.RETHINK.LSJ_SIZE,), style="square")
    sides = cfg.INPUT.MIN_SIZE_TRAIN
    sides = (sides,) if isinstance(sides, int) else tuple(sides)
    return Resizing(sides, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING)


@functools.lru_cache  # configs share their data, and COCO's file takes long to read
def images_of_json(path: str, only_with_objects: bool, min_keypoints: int) -> list:
    """The images to train on."""
    from rethink_pretrain.analysis.data_statistics import read_images

    return read_images(path, only_with_objects=only_with_objects, min_keypoints=min_keypoints)


@functools.lru_cache
def images_of_sets(names: tuple[str, ...], only_with_objects: bool, min_keypoints: int) -> list | None:
    """Those of registered sets; None where their annotations are not on this disk."""
    from detectron2.data import MetadataCatalog, get_detection_dataset_dicts

    from rethink_pretrain.analysis.data_statistics import LabelledImage
    from rethink_pretrain.data import register_named

    register_named(names)
    files = [MetadataCatalog.get(n).get("json_file") or MetadataCatalog.get(n).get("dirname") for n in names]
    if not all(file and Path(file).exists() for file in files):
        return None
    records = get_detection_dataset_dicts(names, filter_empty=only_with_objects, min_keypoints=min_keypoints)
    counts = [sum(not a.get("iscrowd", 0) for a in record.get("annotations", ())) for record in records]
    return [LabelledImage(r["height"], r["width"], n) for r, n in zip(records, counts, strict=True)]


def print_table(accounts: list) -> None:
    """Totals with their parts, and below them the sources."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from rethink_pretrain.analysis.accounting import KINDS, describe_samples

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for kind in KINDS:
        table.add_column(kind, justify="right")
    for account in accounts:
        table.add_row(Text(account.name, "bold"), *map(Text, describe_samples(account.total)))
        for phase in account.phases:
            table.add_row(Text(f"  {phase.name}"), *map(Text, describe_samples(phase.samples)))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    print()
    for account in accounts:
        for phase in account.phases:
            print(f"{account.name}, {phase.name}: {phase.source}")


def write(path: Path, action) -> None:
    """`action()` writes `path`; what the system has against that is an error of one line."""
    from rethink_pretrain.errors import UserError

    try:
        action()
    except (OSError, ValueError) as error:  # ValueError: of an ending that matplotlib does not know
        raise UserError(f"Cannot write {path}: {getattr(error, 'strerror', None) or error}.") from None
    print(path)


@tool()
def main() -> None:
    """Count, print, write."""
    args = parse_args()
    from rethink_pretrain.analysis import figure_2
    from rethink_pretrain.analysis.accounting import account_of_run, as_json
    from rethink_pretrain.analysis.runs import read_runs
    from rethink_pretrain.analysis.samples_chart import plot_samples
    from rethink_pretrain.files import write_json

    if args.paper:
        accounts = figure_2.figure_2()
        print("\n".join([*figure_2.working(), "", figure_2.NOTE, ""]))
    elif args.configs:
        accounts = accounts_of_configs(args.configs, args.train_json)
    else:
        accounts = [account_of_run(run) for run in read_runs(args.runs)]
    print_table(accounts)
    if args.json:
        write(args.json, lambda: write_json(args.json, as_json(accounts)))
    if args.figure:
        write(args.figure, lambda: plot_samples(accounts).savefig(args.figure, dpi=150))


if __name__ == "__main__":
    main()
