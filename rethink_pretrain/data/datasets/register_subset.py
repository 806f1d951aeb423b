"""Subsets of registered sets under names of their own: `coco_2017_train@10k`, or any name from Python."""

import logging
from collections.abc import Iterable

from detectron2.data import DatasetCatalog, MetadataCatalog

from ...errors import UserError
from ...garbage import without_collection
from . import subsets
from .register import check_at_loading, image_id, note_description
from .subsets import SubsetSpec, parse_subset
from .toy_sets import register_toy

logger = logging.getLogger(__name__)


def register_named(names: Iterable[str]) -> None:
    """Register what `names` ask for and nobody else registers: the toy set, and subsets of any set.

    COCO's sets, which the host registers, are checked from here on when they are loaded.
    """
    names = sorted(names)
    if any(name.startswith("toy_") for name in names):
        register_toy()
    for name in names:
        check_at_loading(_parse(name).base if "@" in name else name)
        if "@" in name:
            register_subset(name)


def register_subset(name: str) -> None:
    """Register a `name` such as "coco_2017_train@10k", "voc_2012_train@10%@seed1", "toy_train@1k@stratified".

    The images are chosen when the set is first loaded. A second call does nothing. Raises `UserError` for a
    name of another form and for an unknown base.
    """
    _register(name, _parse(name))


def register_coco_subset(
    name: str, num_images: int, *, base: str | None = None, seed: int = 0, stratified: bool = False
) -> None:
    """Register `num_images` images of `base` as `name`; see `subsets` for how they are chosen.

    `base` is by default the longest registered name that `name` begins with: `coco_2017_train` for
    `coco_2017_train_10k`.
    """
    if base is None:
        fitting = [known for known in DatasetCatalog.list() if name.startswith(f"{known}_")]
        if not fitting:
            raise UserError(f"{name!r} begins with no registered data set. Name one: base=...")
        base = max(fitting, key=len)
    _register(name, SubsetSpec(base, num_images, None, seed, stratified))


def _parse(name: str) -> SubsetSpec:
    try:
        return parse_subset(name)
    except ValueError as error:
        raise UserError(f"{error}.") from None


def _register(name: str, spec: SubsetSpec) -> None:
    if spec.base not in DatasetCatalog.list():
        known = ", ".join(sorted(DatasetCatalog.list()))
        raise UserError(f"Subset {name!r}: unknown data set {spec.base!r}. Registered: {known}.")
    if name in DatasetCatalog.list():
        if MetadataCatalog.get(name).get("subset") != spec:
            raise UserError(
                f"Data set {name!r} is already registered as something else. Choose another name."
            )
        return
    DatasetCatalog.register(name, without_collection()(lambda: _load(name, spec)))
    MetadataCatalog.get(name).set(subset=spec)
    _copy_metadata(name, spec.base)


def _copy_metadata(name: str, base: str) -> None:
    known = MetadataCatalog.get(base).as_dict()
    MetadataCatalog.get(name).set(
        **{key: value for key, value in known.items() if key not in ("name", "description")}
    )


def _load(name: str, spec: SubsetSpec) -> list[dict]:
    records = {image_id(record): record for record in DatasetCatalog.get(spec.base)}
    try:
        count = spec.count(len(records))
    except ValueError:
        raise UserError(f"Subset {name!r}: {spec.base} has {len(records)} images.") from None
    if spec.stratified:
        chosen = subsets.choose_stratified({i: _shown(each) for i, each in records.items()}, count, spec.seed)
    else:
        chosen = subsets.choose(records, count, spec.seed)
    _copy_metadata(name, spec.base)  # loading it may have set its categories
    metadata = MetadataCatalog.get(name)
    metadata.set(subset_image_ids=chosen)
    classes = dict(enumerate(metadata.get("thing_classes", ())))
    rows = subsets.coverage(classes, [_shown(records[i]) for i in chosen])
    logger.info("%s: %d images, digest %s.", name, count, subsets.digest(chosen))
    (logger.info if all(row.images for row in rows) else logger.warning)(
        "%s: %s.", name, subsets.describe_coverage(rows)
    )
    keep = set(chosen)
    ret = [record for i, record in records.items() if i in keep]
    note_description(name, ret)
    return ret


def _shown(record: dict) -> list[int]:
    """The category of each object."""
    return [annotation["category_id"] for annotation in record.get("annotations", ())]
