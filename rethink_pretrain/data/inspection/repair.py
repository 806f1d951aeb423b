"""A repaired copy of a COCO-format json: what can be mended is, the rest is left out, and all of it counted.

The copy has no errors in the sense of `check_document` and `check_images`; warnings may stay. Order and
unknown fields are kept, and records that need nothing are the originals.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from ...progress import track
from ..confine import Confinement
from ..datasets.coco_checks import is_size
from ..geometry import GRAVE, box_problem, segmentation_problem
from ..quote import is_text
from .document import geometry_problems, name_problem
from .image_files import ImageFile
from .kinds import ERRORS
from .values import (
    area_of,
    area_problem,
    count_is_wrong,
    count_visible,
    has_keypoint_names,
    iscrowd_is_wrong,
    number_of_keypoints,
    size_of,
    whole,
)


class Repaired(NamedTuple):
    """What came of it."""

    document: dict[str, Any]
    mended: Counter  # kind -> records
    dropped: Counter  # (what, kind) -> how many; what is "images", "annotations", "categories", "polygons"

    @property
    def nothing_left(self) -> str:
        """The list that is empty now, and has to have something; "" where both have."""
        return next((key for key in ("images", "categories") if not self.document[key]), "")


def repair(document: dict[str, Any], image_root: Path, files: Mapping[str, ImageFile]) -> Repaired:
    """`document` without errors. `files` is what `check_images` found; {} leaves the files out of it."""
    work = _Repair(files, Confinement(image_root))
    repaired = {
        **document,
        # Annotations last: they refer to what is left of the others.
        "categories": work.categories(document["categories"]),
        "images": work.images(document["images"]),
        "annotations": work.annotations(document["annotations"]),
    }
    return Repaired({key: repaired[key] for key in document}, work.mended, work.dropped)


class _Repair:
    def __init__(self, files: Mapping[str, ImageFile], folder: Confinement):
        self.mended: Counter = Counter()
        self.dropped: Counter = Counter()
        self._files = files
        self._folder = folder
        self._sizes: dict[int, tuple[int, int]] = {}  # of the images that are kept
        self._keypoints: dict[int, int | None] = {}  # of the categories that are kept
        self._names: set[str] = set()
        self._left_out: dict[str, set[int | None]] = {"images": set(), "categories": set()}  # ids
        self._notes: list[str | tuple[str, str]] = []  # what the present record needed: counted if it is kept

    def categories(self, records: list) -> list[dict]:
        """Mended ids and names; of equal ids the first."""
        taken = {r.get("name") for r in records if isinstance(r, dict) and isinstance(r.get("name"), str)}
        return [new for new in (self._category(r, taken) for r in records) if new is not None]

    def _category(self, record: Any, taken: set[str]) -> dict | None:
        kind = self._unusable(record, self._keypoints, "category-id-twice")
        if kind:
            return self._drop("categories", kind, record)
        record = self._with_ids(record, "id")
        if record.get("keypoints") is not None and not has_keypoint_names(record):
            self._notes.append("keypoint-names-form")
            record = {key: value for key, value in record.items() if key != "keypoints"}
        name = record.get("name")
        named = is_text(name) and name != ""
        if not named or name in self._names:
            self._notes.append("category-name-twice" if named else "category-name-form")
            record = {**record, "name": _free_name(name if named else "category", record["id"], taken)}
            taken.add(record["name"])
        self._names.add(record["name"])
        self._keypoints[record["id"]] = number_of_keypoints(record)
        return self._keep(record)

    def images(self, records: list) -> list[dict]:
        """Mended ids and sizes; of equal ids the first, and only those whose files can be used."""
        return [new for new in map(self._image, records) if new is not None]

    def _image(self, record: Any) -> dict | None:
        kind = self._unusable(record, self._sizes, "image-id-twice")
        if not kind and whole(record["id"]) < 0:
            kind = "image-id-negative"
        kind = kind or name_problem(record.get("file_name"), self._folder)
        if kind:
            return self._drop("images", kind, record)
        record = self._with_ids(record, "id")
        file = self._files.get(record["file_name"], ImageFile(None))
        grave = next((kind for kind, _ in file.problems if kind in ERRORS), "")
        size = size_of(record) or _readable_size(record)
        if size and file.size_problem(size) == "image-size-rotated":
            grave = grave or "image-size-rotated"  # nobody knows in which of the two its boxes were drawn
        true_size = file.size or size
        if grave or true_size is None or not is_size(*true_size):
            return self._drop("images", grave or "image-size-form", record)
        if size_of(record) != true_size:
            self._notes.append("image-size-differs" if size_of(record) else "image-size-form")
            record = {**record, "width": true_size[0], "height": true_size[1]}
        self._sizes[record["id"]] = true_size
        return self._keep(record)

    def annotations(self, records: list) -> list[dict]:
        """Those of kept images and categories that have a box in the image, with ids of their own."""
        entries = [entry for entry in map(self._entry, track(records, "Repairing")) if entry is not None]
        num_lost = sum(bool(lost) for _, lost, _ in entries)
        num_masks = sum(bool(annotation.get("segmentation")) for annotation, _, _ in entries)
        # Training wants masks of all objects or of none: in a set with masks, who lost its own is left out.
        has_masks = num_masks > num_lost and num_masks + num_lost == len(entries)
        kept = []
        for annotation, lost, notes in entries:
            if lost and has_masks:
                self._drop("annotations", lost)
                continue
            self._notes = [*notes, lost] if lost else notes
            kept.append(self._keep(annotation))
        return self._renumbered(kept)

    def _entry(self, record: Any) -> tuple[dict, str, list] | None:
        """The annotation, the kind for which it lost its mask or "", and what it needed; None: left out."""
        new = self._annotation(record)
        if new is None:
            return None
        lost = record.get("segmentation") and not new.get("segmentation")
        notes, self._notes = self._notes, []
        return new, self._geometry(record)["segmentation"] if lost else "", notes

    def _annotation(self, record: Any) -> dict | None:
        if not isinstance(record, dict):
            return self._drop("annotations", "record-form")
        kind = self._reference_problem(record)
        if kind:
            return self._drop("annotations", kind)
        record = self._with_ids(record, "image_id", "category_id")
        if _is_flat(record.get("segmentation")):
            self._notes.append("polygon-form")
            record = {**record, "segmentation": [record["segmentation"]]}
        problems = self._geometry(record)
        new = self._with_sound_mask(record, problems["segmentation"])
        new, kind = self._with_sound_box(new, problems["bbox"])
        if kind:
            return self._drop("annotations", kind)
        if problems["keypoints"]:
            self._notes.append(problems["keypoints"])
            new = _without_keypoints(new, self._keypoints[new["category_id"]])
        return self._with_sound_extras(new, box_is_new=new["bbox"] is not record.get("bbox"))

    def _reference_problem(self, record: dict) -> str:
        image_id, category_id = whole(record.get("image_id")), whole(record.get("category_id"))
        if image_id is None or category_id is None:
            return "id-form"
        if image_id not in self._sizes:
            return "image-dropped" if image_id in self._left_out["images"] else "image-unlisted"
        if category_id not in self._keypoints:
            return "category-dropped" if category_id in self._left_out["categories"] else "category-unknown"
        return ""

    def _geometry(self, record: dict) -> dict[str, str]:
        image_id, category_id = whole(record["image_id"]), whole(record["category_id"])
        return geometry_problems(record, self._sizes[image_id], self._keypoints[category_id])

    def _with_sound_mask(self, record: dict, kind: str) -> dict:
        """Without polygons or an RLE mask that compiled code must not see."""
        if kind not in GRAVE:
            return record
        size = self._sizes[record["image_id"]]
        masks = record["segmentation"] if isinstance(record["segmentation"], list) else []
        problems = [segmentation_problem([polygon], *size) for polygon in masks]
        sound = [polygon for polygon, problem in zip(masks, problems) if problem not in GRAVE]
        if not sound:
            return {key: value for key, value in record.items() if key != "segmentation"}
        self._notes += [("polygons", problem) for problem in problems if problem in GRAVE]
        return {**record, "segmentation": sound}

    def _with_sound_box(self, record: dict, kind: str) -> tuple[dict, str]:
        """With a box in the image, and ""; or the kind of why there is none."""
        box, size = record.get("bbox"), self._sizes[record["image_id"]]
        if kind not in ("", "box-beyond-image"):
            box = _box_of_polygons(record.get("segmentation"))
        problem = box_problem(box, *size)
        if problem == "box-beyond-image":
            box, problem = _clipped(box, *size), ""
        if problem or box_problem(box, *size):
            return record, kind or problem
        if not kind:
            return record, ""
        self._notes.append(kind)
        return {**record, "bbox": box}, ""

    def _with_sound_extras(self, record: dict, box_is_new: bool) -> dict:
        """With area, iscrowd and num_keypoints as they should be, and without ignore."""
        new = {}
        if iscrowd_is_wrong(record):
            self._notes.append("iscrowd-form")
            new["iscrowd"] = int(record["iscrowd"] not in (False, None, "0", ""))
        if record.get("ignore", 0) != 0:
            self._notes.append("ignore-set")
            new.update({"ignore": 0, "iscrowd": 1} if record["ignore"] else {"ignore": 0})
        kind = area_problem(record)
        if kind or (box_is_new and not record.get("segmentation")):
            self._notes += [kind] if kind else []
            new["area"] = area_of(record)
        if count_is_wrong(record):
            self._notes.append("num-keypoints-form")
            new["num_keypoints"] = count_visible(record)
        return {**record, **new} if new else record

    def _renumbered(self, annotations: list[dict]) -> list[dict]:
        """The first annotation with an id keeps it; others, and those with 0 or none, get free ones."""
        numbers = [whole(annotation.get("id")) for annotation in annotations]
        taken = set(numbers)
        free = (number for number in count(1) if number not in taken)
        seen: set[int] = set()
        ret = []
        for annotation, number in zip(annotations, numbers):
            kind = _id_problem(number, seen)
            if kind:
                self._notes.append(kind)
                annotation = {**annotation, "id": next(free)}
            else:
                annotation = self._with_ids(annotation, "id")
                seen.add(number)
            ret.append(self._keep(annotation))
        return ret

    def _unusable(self, record: Any, kept: Mapping[int, Any], twice: str) -> str:
        if not isinstance(record, dict):
            return "record-form"
        number = whole(record.get("id"))
        if number is None:
            return "id-form"
        return twice if number in kept else ""

    def _with_ids(self, record: dict, *keys: str) -> dict:
        """Ids as whole numbers, which they have to be worth."""
        new = {key: whole(record[key]) for key in keys if type(record[key]) is not int}
        self._notes += ["id-type"] * len(new)
        return {**record, **new} if new else record

    def _keep(self, record: dict) -> dict:
        for note in self._notes:
            (self.mended if isinstance(note, str) else self.dropped)[note] += 1
        self._notes = []
        return record

    def _drop(self, what: str, kind: str, record: Any = None) -> None:
        self.dropped[what, kind] += 1
        if what in self._left_out and isinstance(record, dict):
            self._left_out[what].add(whole(record.get("id")))
        self._notes = []


def _id_problem(number: int | None, seen: set[int]) -> str:
    if number is None:
        return "id-form"
    if number < 1:
        return "annotation-id-below-1"
    return "annotation-id-twice" if number in seen else ""


def _free_name(name: str, number: int, taken: set[str]) -> str:
    """ "nut_7" for a second category "nut" with id 7."""
    candidates = (f"{name}_{number}" + "_" * tries for tries in count())
    return next(candidate for candidate in candidates if candidate not in taken)


def _readable_size(image: dict) -> tuple[int, int] | None:
    """The size that is written as text or fraction."""
    return size_of({key: whole(image.get(key)) for key in ("width", "height")})


def _is_flat(segmentation: Any) -> bool:
    """Whether it is one polygon where a list of polygons should be."""
    is_polygon = isinstance(segmentation, list) and len(segmentation) >= 6
    return is_polygon and {int, float}.issuperset(map(type, segmentation))


def _clipped(box: list[float], width: int, height: int) -> list[float]:
    x, y, w, h = box
    left, top = max(x, 0), max(y, 0)
    return [left, top, min(x + w, width) - left, min(y + h, height) - top]


def _box_of_polygons(polygons: Any) -> list[float] | None:
    """Around all points of sound `polygons`; None where there are none."""
    if not isinstance(polygons, list) or not polygons:
        return None
    xs, ys = ([v for polygon in polygons for v in polygon[start::2]] for start in (0, 1))
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _without_keypoints(annotation: dict, num_keypoints: int | None) -> dict:
    """All of them unlabelled where their number is known, else none."""
    others = {key: value for key, value in annotation.items() if key not in ("keypoints", "num_keypoints")}
    if num_keypoints is None:
        return others
    return {**others, "keypoints": [0, 0, 0] * num_keypoints, "num_keypoints": 0}
