"""Make a toy detection set in COCO's format: textured shapes, learned in minutes.

    python tools/make_toy_dataset.py --output datasets/toy --num-train 3000 --num-val 250 --image-size 128

The same arguments give the same bytes on any number of workers.
"""

import argparse
import sys

NEXT_COMMAND = "python tools/train_net.py --config-file configs/toy/scratch_mask_rcnn_R_18_FPN_gn.yaml"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--output", required=True, metavar="DIR", help="gets train.json, val.json, train/ and val/")
    add("--num-train", type=int, default=3000, metavar="N", help="training images (%(default)s)")
    add("--num-val", type=int, default=250, metavar="N", help="validation images (%(default)s)")
    add("--image-size", type=int, default=128, metavar="S", help="long side in px (%(default)s)")
    add("--seed", type=int, default=0, metavar="K", help="another seed, another set (%(default)s)")
    add("--num-workers", type=int, metavar="W", help="processes (default: one per usable core)")
    return parser.parse_args()


def report(summary: dict) -> None:
    done = "Already there, nothing to do:" if summary["already_there"] else "Wrote"
    print("{done} {output}: {images} images, {objects} objects, {crowds} crowds".format(done=done, **summary))
    if not summary["already_there"]:
        print(f"{summary['images'] / summary['seconds']:.0f} images/s")
    print(f"Next: {NEXT_COMMAND}")


def main() -> None:
    arguments = parse_arguments()
    try:
        from rethink_pretrain.data.datasets.toy import make_toy_dataset
        from rethink_pretrain.errors import one_line_errors

        with one_line_errors():
            summary = make_toy_dataset(**vars(arguments))
    except KeyboardInterrupt:
        print("Interrupted. The same command completes the set.", file=sys.stderr)
        raise SystemExit(130) from None
    report(summary)


if __name__ == "__main__":
    main()
