"""Make a toy detection set in COCO's format: textured shapes, learned in minutes.

    python tools/make_toy_dataset.py --output datasets/toy --num-train 3000 --num-val 250 --image-size 128

The same arguments give the same bytes on any number of workers.
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator

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


@contextlib.contextmanager
def show_progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal that moves at every percent, else a line at every quarter."""

    def passes(done: int, total: int, steps: int) -> bool:
        return done * steps // total > (done - 1) * steps // total

    if not sys.stdout.isatty():
        yield lambda done, total: passes(done, total, 4) and print(f"{done}/{total} images", flush=True)
        return
    from rich.progress import Progress

    # Refreshed by hand: rich's own refreshing is a thread, and the workers are forked from this process.
    with Progress(auto_refresh=False, transient=True) as bar:
        task = bar.add_task("Drawing", total=None)
        yield lambda done, total: bar.update(
            task, completed=done, total=total, refresh=passes(done, total, 100)
        )


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

        with one_line_errors(), show_progress() as progress:
            summary = make_toy_dataset(progress=progress, **vars(arguments))
    except KeyboardInterrupt:
        print("Interrupted. The same command completes the set.", file=sys.stderr)
        raise SystemExit(130) from None
    report(summary)


if __name__ == "__main__":
    main()
