"""Where a data set stands on the paper's scale, and what follows: a verdict, two trainings, their cost."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from .costs import GPUS, cost_of, relatives
from .data_facts import DataFacts
from .evidence import Arm, Row
from .paper import Paper

KNOWN, LIKELY, UNKNOWN = "known", "likely", "unknown"
PUBLISHED = "8 V100"  # whose speed stands for a machine that nobody measured
# Factors within which a set counts as that of a row. Rules of ours: the paper has these rows alone.
SAME_IMAGES, SAME_OBJECTS, SAME_CATEGORIES = 1.15, 1.5, 2.0

_DETAILED = "8 P100"  # for which seconds of ResNet-50 and ResNet-101 were published
_REFERENCE_BATCH = 16  # images per iteration of the published speeds, and of RETHINK.DROPS


class Verdict(NamedTuple):
    """certainty: `KNOWN`, `LIKELY` or `UNKNOWN`. row: the one whose recipe suits; else the nearest.

    sentence: what the paper says of such a set. reasons: why. silent: what the paper does not tell.
    """

    certainty: str
    sentence: str
    row: Row
    reasons: list[str]
    silent: list[str]


class Route(NamedTuple):
    """A training to start: `config` with `schedule` as RETHINK.SCHEDULE.

    drops: RETHINK.DROPS to set; () leaves the config's. images: of the training, every visit counted.
    """

    name: str
    config: str
    schedule: str
    drops: tuple[float, ...]
    images: float
    epochs: float


class Speed(NamedTuple):
    """Seconds that one GPU takes for an image of training, of the random and the pre-trained route.

    unit: "GPU", or "CPU" where that was measured.
    """

    random: float
    pretrained: float
    source: str
    unit: str = "GPU"


class Price(NamedTuple):
    """Of one training; `money` None where no price is given."""

    hours: float
    gpu_hours: float
    money: float | None


def place(facts: DataFacts, rows: list[Row]) -> Verdict:
    """The verdict on a set, by its images with objects, its objects per image and its used categories."""
    images = facts.images_with_objects
    kin = [row for row in rows if _is_kin(facts, row)]
    match = min(
        (row for row in kin if _near(images, row.images, SAME_IMAGES)), default=None, key=_distance(facts)
    )
    row = match or min(rows, key=_distance(facts))
    between = _neighbours(images, kin)
    if match:
        certainty, sentence = KNOWN, f"known: {_ending(match)}"
    elif between and between[0].equal == between[1].equal:
        certainty, sentence = LIKELY, _describe_agreement(images, *between)
    elif between:
        certainty, sentence = UNKNOWN, _describe_gap(images, *between)
    else:
        certainty, sentence = UNKNOWN, f"unknown: {'; '.join(_deviations(facts, rows))}."
    hint = "" if match or between else _expectation(facts, rows)
    reasons = [*_describe_place(facts, rows), *([hint] if hint else []), _images_do_not_decide(rows)]
    return Verdict(
        certainty, sentence, row, [*reasons, f"Row {row.name}: {row.note}"], _silent(facts, rows, row)
    )


def plan_routes(
    facts: DataFacts, verdict: Verdict, rows: list[Row], parse_length: Callable[[str, int], float]
) -> tuple[Route, Route]:
    """From random weights and from pre-trained ones, by the recipe of the verdict's row.

    A set among the images of the row's kin takes its iterations. One outside, which they would show too often
    or too rarely, takes its epochs. `parse_length` reads RETHINK.SCHEDULE; see `solver.schedule`.
    """
    row = verdict.row
    kin = [
        other.images for other in rows if (other.objects, other.categories) == (row.objects, row.categories)
    ]
    images = facts.images_with_objects
    inside = min(kin) / SAME_IMAGES <= images <= max(kin) * SAME_IMAGES
    return tuple(
        _plan(name, arm, row, images, inside, parse_length)
        for name, arm in (("random", row.random), ("pre-trained", row.enough))
    )


def _plan(
    name: str, arm: Arm, row: Row, images: int, inside: bool, parse_length: Callable[[str, int], float]
) -> Route:
    length = parse_length(arm.schedule, row.images)
    if inside:
        return Route(name, arm.config, arm.schedule, (), length, length / images)
    epochs = max(1, round(length / row.images))
    # Shares of the length, because the iterations before its end may be more than there are.
    drops = tuple(round(1 - drop * _REFERENCE_BATCH / length, 3) for drop in arm.drops)
    return Route(name, arm.config, f"{epochs}ep", drops, epochs * images, epochs)


def given_speed(seconds_per_iteration: float, images_per_gpu: int, source: str = "as given") -> Speed:
    """The same for both routes."""
    seconds = seconds_per_iteration / images_per_gpu
    return Speed(seconds, seconds, f"{seconds_per_iteration:g} s per iteration, {source}")


def published_speed(paper: Paper, row: Row) -> Speed:
    """Of Detectron2 on 8 V100; for ResNet-101 scaled by what Detectron published on P100."""
    configs = row.random.config, row.enough.config
    work = {
        name: _seconds_on_p100(paper, name) for config in configs for name in (config, *relatives(config))
    }
    seconds = [
        cost_of(paper, work, config, 3600 / _REFERENCE_BATCH, PUBLISHED).hours * GPUS for config in configs
    ]
    found = [paper.seconds_of(relatives(config)[-1], PUBLISHED) for config in configs]
    values = " and ".join(f"{row.seconds:g}" for row in found)
    source = (
        f"published for {PUBLISHED} ({found[0].source}, ResNet-50, {values} s per iteration of 16 images)"
    )
    if "R101" in configs[0]:
        source += ", times what ResNet-101 took longer on P100"
    return Speed(*seconds, source)


def _seconds_on_p100(paper: Paper, config: str) -> float:
    found = (paper.seconds_of(name, _DETAILED) for name in (config, *relatives(config)))
    return next(row.seconds for row in found if row)


def price_of(route: Route, speed: Speed, gpus: int, per_gpu_hour: float | None = None) -> Price:
    """As if nothing were lost between GPUs, and without evaluations."""
    seconds = speed.random if route.name == "random" else speed.pretrained
    gpu_hours = route.images * seconds / 3600
    money = None if per_gpu_hour is None else gpu_hours * per_gpu_hour
    return Price(gpu_hours / gpus, gpu_hours, money)


def _near(a: float, b: float, factor: float) -> bool:
    return 1 / factor <= a / b <= factor


def _is_kin(facts: DataFacts, row: Row) -> bool:
    return _near(facts.objects_per_image, row.objects, SAME_OBJECTS) and _near(
        facts.used_categories, row.categories, SAME_CATEGORIES
    )


def _distance(facts: DataFacts) -> Callable[[Row], float]:
    def distance(row: Row) -> float:
        ratios = (
            facts.images_with_objects / row.images,
            facts.objects_per_image / row.objects,
            facts.used_categories / row.categories,
        )
        return sum(abs(math.log(ratio)) for ratio in ratios)

    return distance


def _neighbours(images: int, kin: Iterable[Row]) -> tuple[Row, Row] | None:
    """The nearest row with fewer images and the nearest with more; None where there are not both."""
    below = max((row for row in kin if row.images <= images), default=None, key=lambda row: row.images)
    above = min((row for row in kin if row.images > images), default=None, key=lambda row: row.images)
    return (below, above) if below and above else None


def _ending(row: Row) -> str:
    numbers = f"{row.random.value} against {row.pretrained.value} {row.random.metric}"
    if row.equal:
        where = f"{row.place}: {numbers} on {row.name} images"
        return f"both routes end equal ({where}). Random weights need {row.needs}."
    what = "PASCAL VOC" if row.name == "VOC" else f"{row.name} images"
    return f"random weights end worse ({row.place}: {numbers} on {what})."


def _cite(row: Row) -> str:
    return f"{row.name} ({row.random.value} against {row.pretrained.value}; {row.place})"


def _describe_agreement(images: int, below: Row, above: Row) -> str:
    end = "both routes end equal" if below.equal else "random weights end worse"
    both = f"{_cite(below)} and {_cite(above)}"
    return f"likely: {end}. {images:,} images lie between two rows where that is so, {both}."


def _describe_gap(images: int, below: Row, above: Row) -> str:
    return (
        f"unknown: between two rows. {images:,} images lie between {_cite(below)}, where random weights end "
        f"worse, and {_cite(above)}, where both routes end equal. Where it turns is not published."
    )


def _deviations(facts: DataFacts, rows: list[Row]) -> list[str]:
    """In what the set is like none of the rows; where that is in nothing alone, that it is in the whole."""
    images, objects, categories = facts.images_with_objects, facts.objects_per_image, facts.used_categories
    found = [
        _deviation("images", images, {row.name: row.images for row in rows}, SAME_IMAGES, inside=False),
        _deviation("objects per image", objects, {_owner(r): r.objects for r in rows}, SAME_OBJECTS),
        _deviation("categories", categories, {_owner(r): r.categories for r in rows}, SAME_CATEGORIES),
    ]
    whole = (
        f"no row has {images:,} images with {objects:.1f} objects per image and "
        f"{_count(categories, 'category', 'categories')} at once"
    )
    return [deviation for deviation in found if deviation] or [whole]


def _deviation(what: str, value: float, known: dict[str, float], factor: float, inside: bool = True) -> str:
    """ "" for a value that is near a known one or, unless `inside`, between two."""
    low, high = min(known, key=known.get), max(known, key=known.get)
    shown = f"{value:,.1f}" if what == "objects per image" else f"{value:,}"
    if value < known[low] / factor:
        return f"fewer {what} ({shown}) than any row ({low}: {known[low]:,.4g})"
    if value > known[high] * factor:
        return f"more {what} ({shown}) than any row ({high}: {known[high]:,.6g})"
    if not inside or any(_near(value, other, factor) for other in known.values()):
        return ""
    return f"{what} ({shown}) between {low}'s {known[low]:,.3g} and {high}'s {known[high]:,.3g}"


def _owner(row: Row) -> str:
    return "VOC" if row.name == "VOC" else "COCO"


def _expectation(facts: DataFacts, rows: list[Row]) -> str:
    """What follows if more images, objects and categories never make random weights worse."""

    def smaller(row: Row) -> bool:
        return (
            facts.images_with_objects <= row.images
            and facts.objects_per_image <= row.objects * SAME_OBJECTS
            and facts.used_categories <= row.categories * SAME_CATEGORIES
        )

    def larger(row: Row) -> bool:
        return (
            facts.images_with_objects >= row.images
            and facts.objects_per_image >= row.objects / SAME_OBJECTS
            and facts.used_categories >= row.categories / SAME_CATEGORIES
        )

    worse = min((row for row in rows if not row.equal and smaller(row)), default=None, key=_distance(facts))
    equal = min((row for row in rows if row.equal and larger(row)), default=None, key=_distance(facts))
    if worse:
        found = f"they did on {_cite(worse)}, which has as much of everything, or more"
        return f"Expect random weights to end worse: {found}."
    if equal:
        found = f"they did on {_cite(equal)}, which has as much of everything, or less"
        return f"Expect both routes to end equal: {found}."
    return ""


def _describe_place(facts: DataFacts, rows: list[Row]) -> list[str]:
    images, objects, categories = facts.images_with_objects, facts.objects_per_image, facts.used_categories
    size = next((row.name for row in rows if _near(images, row.images, SAME_IMAGES)), None)
    many = {_owner(row): row for row in rows}
    coco, voc = many["COCO"], many["VOC"]
    alike = [name for name, row in many.items() if _near(objects, row.objects, SAME_OBJECTS)]
    wide = [name for name, row in many.items() if _near(categories, row.categories, SAME_CATEGORIES)]
    return [
        f"Images: {images:,} with objects, {f'as row {size}' if size else 'as no row'}.",
        f"Objects per image: {objects:.1f}, {_as(alike)} (COCO {coco.objects:.1f}, VOC {voc.objects}).",
        f"Categories: {categories}, {_as(wide)} (COCO {coco.categories}, VOC {voc.categories}).",
    ]


def _as(names: list[str]) -> str:
    return f"as in {' and '.join(names)}" if names else "as in neither"


def _images_do_not_decide(rows: list[Row]) -> str:
    voc, ten = (next(row for row in rows if row.name == name) for name in ("VOC", "10k"))
    return (
        f"Images alone do not decide: VOC has more ({voc.images:,}) than row 10k, where both routes end "
        f"equal ({ten.random.value} against {ten.pretrained.value}), and random weights end worse on it "
        f"({voc.random.value} against {voc.pretrained.value} {voc.random.metric}). It has "
        f"{voc.objects} objects per image, and {voc.categories} categories."
    )


def _silent(facts: DataFacts, rows: list[Row], row: Row) -> list[str]:
    """What the paper does not tell, for such a set first."""
    ret = [f"Of row {row.name} it does not publish: {row.unpublished}."] if row.unpublished else []
    rare = facts.rare_categories()
    if rare:
        names = ", ".join(f"{category.name} ({category.images})" for category in rare[:3])
        more = ", ..." if len(rare) > 3 else ""
        ret.append(
            f"Rare categories: {_count(len(rare), 'category is', 'categories are')} in fewer than 10 images "
            f"({names}{more}). It says nothing of such."
        )
    return [
        *ret,
        "Sizes: nothing below 1k images, nothing above 118k, and the break-down lies somewhere between 3.5k "
        "and 10k. Objects per image: nothing below VOC's 2.3, between that and COCO's 7.3, or above.",
        "Domains: photographs of everyday scenes alone, with ImageNet's weights. Other images, and weights "
        "from your own domain, can turn out either way.",
        "Spread: it reports one training of each, so a few tenths of a point mean nothing.",
    ]


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
