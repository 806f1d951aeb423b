"""Make a toy detection set in COCO's format: textured shapes, learned in minutes.

    python tools/make_toy_dataset.py --output datasets/toy --num-train 3000 --num-val 250 --image-size 128

With --classification, make its counterpart for pre-training: one such object per picture, a folder per class.

    python tools/make_toy_dataset.py --classification --output datasets/toy_classes

The same arguments give the same bytes on any number of workers.
"""

import argparse

from rethink_pretrain.command_line import tool

NEXT_COMMAND = "python tools/train_net.py --config-file configs/toy/scratch_mask_rcnn_R_18_FPN_gn.yaml"
DETECTION = {"num_train": 3000, "num_val": 250, "image_size": 128}
CLASSIFICATION = {"num_train": 3200, "num_val": 400, "image_size": 64}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", required=True, metavar="DIR", help="gets train/, val/ and what describes them")
    add("--classification", action="store_true", help="single objects in one folder per class")
    for name, metavar, what in (
        ("num_train", "N", "training images"),
        ("num_val", "N", "validation images"),
        ("image_size", "S", "long side in px"),
    ):
        defaults = f"{DETECTION[name]}, with --classification {CLASSIFICATION[name]}"
        add(f"--{name.replace('_', '-')}", type=int, metavar=metavar, help=f"{what} ({defaults})")
    add("--seed", type=int, default=0, metavar="K", help="another seed, another set (%(default)s)")
    add("--num-workers", type=int, metavar="W", help="processes (default: one per usable core)")
    return parser.parse_args()


def make(classification: bool, **arguments) -> dict:
    """Make the set and return its summary. An argument that is None has the set's default."""
    from rethink_pretrain.data.datasets.toy import make_toy_dataset
    from rethink_pretrain.data.datasets.toy_classes import make_toy_classification

    defaults = CLASSIFICATION if classification else DETECTION
    given = {name: value for name, value in arguments.items() if value is not None}
    return (make_toy_classification if classification else make_toy_dataset)(**{**defaults, **given})


def report(summary: dict) -> None:
    done = "Already there, nothing to do:" if summary["already_there"] else "Wrote"
    counts = ", ".join(
        f"{summary[name]} {name}" for name in ("images", "objects", "crowds", "classes") if name in summary
    )
    print(f"{done} {summary['output']}: {counts}")
    if not summary["already_there"]:
        print(f"{summary['images'] / summary['seconds']:.0f} images/s")
    if "objects" in summary:
        print(f"Next: {NEXT_COMMAND}")


@tool("Interrupted. The same command completes the set.")
def main() -> None:
    """Make, say what came out."""
    report(make(**vars(parse_arguments())))


if __name__ == "__main__":
    main()
