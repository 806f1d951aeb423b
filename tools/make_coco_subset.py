#!/usr/bin/env python
"""A subset of a COCO-format json: tools/make_coco_subset.py --json IN --num-images 10000 --output OUT

The images are those of `NAME@10k` in a config: by hash order, the same on every machine, a small subset
inside every larger one. Categories, licences, info and all annotations of the images, crowds too, are kept
as they are.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

from rethink_pretrain.command_line import tool
from rethink_pretrain.garbage import without_collection


def parse_args() -> argparse.Namespace:
    """Paths, size and draw."""
    summary, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(description=summary, epilog=rest)
    parser.add_argument("--json", required=True, metavar="IN", help="annotations in COCO's format")
    parser.add_argument("--num-images", required=True, type=int, metavar="N")
    parser.add_argument("--output", required=True, metavar="OUT", help="the json of the subset")
    parser.add_argument("--seed", type=int, default=0, metavar="K", help="another seed, another draw")
    parser.add_argument("--stratified", action="store_true", help="every category in about its share")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it is there")
    return parser.parse_args()


def read(path: Path) -> dict:
    """The document, checked for what is needed here."""
    from rethink_pretrain.data.datasets.coco_json import read_lists
    from rethink_pretrain.errors import UserError

    document = read_lists(path)
    try:
        ids = {image["id"] for image in document["images"]}
        for annotation in document["annotations"]:
            annotation["image_id"], annotation["category_id"]
        names = {category["id"]: category["name"] for category in document["categories"]}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: an image, annotation or category lacks {error}.") from None
    if len(ids) < len(document["images"]) or len(names) < len(document["categories"]):
        raise UserError(f"{path}: two images or two categories share one id.")
    return document


def make_subset(document: dict, num_images: int, seed: int, stratified: bool) -> tuple[dict, str]:
    """The document of the subset, in the order of the original, and what it holds in words."""
    from rethink_pretrain.data.datasets import subsets
    from rethink_pretrain.errors import UserError

    shown = defaultdict(list)
    for annotation in document["annotations"]:
        shown[annotation["image_id"]].append(annotation["category_id"])
    ids = [image["id"] for image in document["images"]]
    if not 0 < num_images <= len(ids):
        raise UserError(f"--num-images {num_images}: the json has {len(ids)} images.")
    if stratified:
        chosen = subsets.choose_stratified({i: shown.get(i, ()) for i in ids}, num_images, seed)
    else:
        chosen = subsets.choose(ids, num_images, seed)
    keep = set(chosen)
    subset = {
        **document,
        "images": [image for image in document["images"] if image["id"] in keep],
        "annotations": [a for a in document["annotations"] if a["image_id"] in keep],
    }
    names = {category["id"]: category["name"] for category in document["categories"]}
    rows = subsets.coverage(names, [shown.get(image_id, ()) for image_id in chosen])
    words = (
        f"{len(subset['images'])} images, {len(subset['annotations'])} annotations, "
        f"{subsets.describe_coverage(rows)}\ndigest {subsets.digest(chosen)}"
    )
    return subset, words


@tool("Stopped. Nothing was written.")
@without_collection()
def main() -> None:
    """Read, choose, write."""
    args = parse_args()
    from rethink_pretrain.errors import UserError
    from rethink_pretrain.files import write_text
    from rethink_pretrain.progress import progress

    output = Path(args.output)
    if output.exists() and not args.overwrite:
        raise UserError(f"{output} is there already. Choose another --output, or add --overwrite.")
    if not output.parent.is_dir():
        raise UserError(f"The folder {output.parent} does not exist.")
    with progress(output.name, total=3) as step:
        step.announce(f"reading {args.json}")
        document = read(Path(args.json))
        step.advance()
        step.announce("choosing")
        subset, words = make_subset(document, args.num_images, args.seed, args.stratified)
        step.advance()
        step.announce("writing")
        try:
            write_text(output, json.dumps(subset))
        except OSError as error:
            raise UserError(f"Cannot write {output}: {error.strerror}.") from None
        step.advance()
    print(f"{output}: {words}")


if __name__ == "__main__":
    main()
