"""Subsets of a data set that are the same on every machine: by hash order of the image ids.

Images are ordered by the SHA-256 of "<seed>:<image id>"; a subset of N images is the first N. So 1k lies
inside 3.5k inside 10k, the order of the json file does not matter, another seed is another draw, and
nothing but the seed has to be kept to find the images again. How the paper drew its subsets is not stated.

Only the standard library: this file runs alone on any Python.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

RARE_IMAGES = 10  # a category in fewer images of the subset is reported as rare

_SPEC = re.compile(
    r"(?P<base>[^@]+)@(?P<number>\d+(?:\.\d+)?)(?P<unit>[kM%]?)(?:@seed(?P<seed>\d+))?(?P<stratified>@stratified)?"
)
_UNITS = {"": 1, "k": 1_000, "M": 1_000_000}
_EXAMPLES = "coco_2017_train@10k, coco_2017_train@10%, coco_2017_train@3500@seed1, toy_train@1k@stratified"


class SubsetSpec(NamedTuple):
    """What a name such as "coco_2017_train@10k@seed1" asks for; exactly one of images and share is set."""

    base: str
    images: int | None
    share: float | None  # 0 to 1
    seed: int
    stratified: bool

    def count(self, total: int) -> int:
        """Images out of `total`. Raises `ValueError` where there are not as many, or none."""
        number = self.images if self.images is not None else round(self.share * total)
        if not 0 < number <= total:
            raise ValueError(f"{number} of {total} images")
        return number


def parse_subset(name: str) -> SubsetSpec:
    """The parts of `name`. Raises `ValueError` with examples for anything that is not such a name."""
    match = _SPEC.fullmatch(name)
    # Decimal, because 2.01 * 1000 is not 2010 in binary.
    number = Decimal(match["number"]) * _UNITS.get(match["unit"], 1) if match else 0
    share = match is not None and match["unit"] == "%"
    if match is None or number <= 0 or (share and number > 100) or (not share and number % 1):
        raise ValueError(f"Subset {name!r} is not of the form NAME@SIZE[@seedK][@stratified], as {_EXAMPLES}")
    return SubsetSpec(
        base=match["base"],
        images=None if share else int(number),
        share=float(number / 100) if share else None,
        seed=int(match["seed"] or 0),
        stratified=bool(match["stratified"]),
    )


def hash_order(image_ids: Iterable[int | str], seed: int = 0) -> list[int | str]:
    """All of `image_ids` in the order of which every subset is a beginning."""
    return sorted(image_ids, key=lambda image_id: hashlib.sha256(f"{seed}:{image_id}".encode()).digest())


def choose(image_ids: Collection[int | str], num_images: int, seed: int = 0) -> list[int | str]:
    """`num_images` of `image_ids`."""
    return hash_order(image_ids, seed)[:num_images]


def choose_stratified(
    categories: Mapping[int | str, Collection[int]], num_images: int, seed: int = 0
) -> list[int | str]:
    """`num_images` of the images, every category in about its share of them.

    `categories` maps each image to the categories it shows. An image belongs to the stratum of its rarest
    category, images without objects to one of their own. Strata are interleaved: the i-th image of a stratum
    of n, in hash order, stands at (i + 1/2) / n, and the subset is the images that stand first. Subsets are
    therefore nested, and every stratum gives about the same share of its images. The time is that of sorting.
    """
    frequency = Counter(category for shown in categories.values() for category in set(shown))
    strata = defaultdict(list)
    for image_id in hash_order(categories, seed):
        shown = categories[image_id]
        strata[min(shown, key=lambda c: (frequency[c], c)) if shown else None].append(image_id)
    places = {
        image_id: ((index + 0.5) / len(stratum), order)
        for order, stratum in enumerate(strata.values())
        for index, image_id in enumerate(stratum)
    }
    return sorted(places, key=places.__getitem__)[:num_images]


def digest(image_ids: Iterable[int | str]) -> str:
    """SHA-256, in hex, of the ids as text, sorted and one per line: the same for the same set of images."""
    return hashlib.sha256("\n".join(sorted(map(str, image_ids))).encode()).hexdigest()


class Coverage(NamedTuple):
    """Images and objects of one category in a subset."""

    name: str
    images: int
    objects: int


def coverage(names: Mapping[int, str], shown: Iterable[Collection[int]]) -> list[Coverage]:
    """Per category of `names`, in its order; `shown` has the category of every object, image by image."""
    images, objects = Counter(), Counter()
    for categories in shown:
        objects.update(categories)
        images.update(set(categories))
    return [Coverage(name, images[category], objects[category]) for category, name in names.items()]


def describe_coverage(rows: Collection[Coverage]) -> str:
    """One line: how many categories are there, which are missing and which are rare."""
    missing = [row.name for row in rows if not row.images]
    rare = [f"{row.name} ({row.images})" for row in rows if 0 < row.images < RARE_IMAGES]
    words = [f"{len(rows) - len(missing)} of {len(rows)} categories"]
    if missing:
        words.append(f"missing: {', '.join(missing)}")
    if rare:
        words.append(f"in fewer than {RARE_IMAGES} images: {', '.join(rare)}")
    return "; ".join(words)
