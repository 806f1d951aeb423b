"""Measure MODEL.PIXEL_MEAN and MODEL.PIXEL_STD of a data set, with any number of channels.

    python tools/measure_pixels.py --json train.json --images train/ --format RAW
    python tools/measure_pixels.py --dataset toy_train

The same arguments draw the same images. Values are those of the files, before any resizing.
"""

import argparse

from rethink_pretrain.command_line import tool


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--json", metavar="J", help="annotations in COCO's format")
    add("--images", metavar="DIR", help="folder of their images")
    add("--dataset", metavar="NAME", help="a registered data set instead, such as toy_train")
    add(
        "--format",
        default="BGR",
        choices=["BGR", "RGB", "L", "RAW"],
        help="INPUT.FORMAT; RAW is the channels and bits of the file (%(default)s)",
    )
    add("--num-images", type=int, default=1000, metavar="N", help="size of the sample (%(default)s)")
    add("--seed", type=int, default=0, metavar="K", help="another seed, another sample (%(default)s)")
    arguments = parser.parse_args()
    if bool(arguments.dataset) == bool(arguments.json) or bool(arguments.json) != bool(arguments.images):
        parser.error("give either --dataset, or --json and --images")
    return arguments


def find_files(arguments: argparse.Namespace) -> dict[int | str, str]:
    """Image id -> path."""
    from rethink_pretrain.data import list_images_of_dataset, list_images_of_json

    if arguments.dataset:
        return list_images_of_dataset(arguments.dataset)
    return list_images_of_json(arguments.json, arguments.images)


def as_options(mean: tuple[float, ...], std: tuple[float, ...]) -> str:
    """Two options, each one word for a shell: quoted, without blanks."""
    texts = (",".join(f"{value:.3f}" for value in values) for values in (mean, std))
    return 'MODEL.PIXEL_MEAN "[{}]" MODEL.PIXEL_STD "[{}]"'.format(*texts)


@tool("Interrupted.")
def main() -> None:
    """Measure, print."""
    arguments = parse_arguments()
    from rethink_pretrain.data import measure_pixels, sample_files
    from rethink_pretrain.progress import track

    files = sample_files(find_files(arguments), arguments.num_images, arguments.seed)
    result = measure_pixels(track(files, "Measuring"), arguments.format)
    stored = " and ".join(result.types)
    print(f"{result.num_images} images, {result.num_pixels} pixels, {len(result.mean)} channels, {stored}")
    if len(result.types) > 1:
        print(f"warning: the files differ in bit depth ({stored}); one scale has to hold for all of them")
    if 0 in result.std:
        print("warning: a channel is constant; MODEL.PIXEL_STD divides by it, so give 1 there")
    print(as_options(result.mean, result.std))


if __name__ == "__main__":
    main()
