"""Verdicts on sets of known counts, against what the paper says of them; lengths and costs by hand."""

import pytest
from conftest import REPOSITORY

from rethink_pretrain.analysis.data_facts import CategoryFacts, DataFacts
from rethink_pretrain.analysis.evidence import Row, read_evidence
from rethink_pretrain.analysis.paper import Paper, read_paper
from rethink_pretrain.analysis.planner import given_speed, place, plan_routes, price_of, published_speed
from rethink_pretrain.solver.schedule import parse_length

COCO = (7.27, 80)


@pytest.fixture(scope="module")
def paper() -> Paper:
    return read_paper(REPOSITORY / "results" / "paper.json")


@pytest.fixture(scope="module")
def rows(paper) -> list[Row]:
    return read_evidence(paper, REPOSITORY / "configs")


def facts(images: int, per_image: float = 7.27, categories: int = 80, empty: int = 0) -> DataFacts:
    objects = round(images * per_image)
    each = [
        CategoryFacts(f"c{i}", images // categories + 10, objects // categories) for i in range(categories)
    ]
    return DataFacts(images + empty, images, objects, 0, each, [(640, 480)], True)


@pytest.mark.parametrize(
    ("images", "row", "parts"),
    [
        (118_287, "118k", ["both routes end equal", "table 1", "41.3 against 41.1", "need 5x or more"]),
        (117_266, "118k", ["both routes end equal"]),  # those of train2017 with objects
        (35_000, "35k", ["both routes end equal", "figure 7", "36.3 against 36.3"]),
        (10_000, "10k", ["both routes end equal", "figure 7", "25.9 against 26.0", "220k iterations"]),
        (3_500, "3.5k", ["random weights end worse", "text of section 5", "9.3 against 16.0"]),
        (1_000, "1k", ["random weights end worse", "text of section 5 and figure 8", "3.5 against 9.9"]),
    ],
)
def test_sets_of_the_paper_are_known(rows, images, row, parts):
    verdict = place(facts(images), rows)
    assert (verdict.certainty, verdict.row.name) == ("known", row)
    assert verdict.sentence.startswith("known: ") and all(part in verdict.sentence for part in parts)


def test_voc_is_known_by_more_than_its_images(rows):
    verdict = place(facts(15_000, 2.3, 20), rows)
    assert (verdict.certainty, verdict.row.name) == ("known", "VOC")
    assert "random weights end worse" in verdict.sentence and "77.6 against 82.7 mAP" in verdict.sentence
    assert place(facts(15_000), rows).sentence.startswith("likely: both routes end equal")


@pytest.mark.parametrize("images", [15_000, 20_000, 60_000])
def test_between_rows_that_agree(rows, images):
    verdict = place(facts(images), rows)
    assert verdict.certainty == "likely" and "both routes end equal" in verdict.sentence
    assert "random weights end worse" in place(facts(2_000), rows).sentence


@pytest.mark.parametrize("images", [4_500, 5_000, 8_000])
def test_the_break_down_is_unknown(rows, images):
    verdict = place(facts(images), rows)
    assert verdict.sentence.startswith("unknown: between two rows") and verdict.certainty == "unknown"
    assert "3.5k (9.3 against 16.0" in verdict.sentence and "10k (25.9 against 26.0" in verdict.sentence


@pytest.mark.parametrize(
    ("counts", "words", "expectation"),
    [
        ((400, *COCO), "fewer images (400) than any row (1k: 1,000)", "random weights to end worse"),
        ((500_000, *COCO), "more images (500,000) than any row (118k: 118,287)", "both routes to end equal"),
        ((10_000, 1.1, 80), "fewer objects per image (1.1) than any row (VOC: 2.3)", ""),
        ((10_000, 4.0, 80), "objects per image (4.0) between VOC's 2.3 and COCO's 7.27", ""),
        ((10_000, 30.0, 80), "more objects per image (30.0) than any row", "both routes to end equal"),
        ((10_000, 7.27, 3), "fewer categories (3) than any row (VOC: 20)", ""),
        ((10_000, 7.27, 1_200), "more categories (1,200) than any row", "both routes to end equal"),
        (
            (5_000, 2.3, 20),
            "no row has 5,000 images with 2.3 objects per image and 20 categories",
            "end worse",
        ),
        ((100_000, 2.3, 80), "no row has 100,000 images", ""),
    ],
)
def test_regimes_without_evidence_are_unknown(rows, counts, words, expectation):
    verdict = place(facts(*counts), rows)
    assert verdict.certainty == "unknown" and verdict.sentence.startswith("unknown: ")
    assert words in verdict.sentence
    expected = [reason for reason in verdict.reasons if reason.startswith("Expect")]
    assert len(expected) == bool(expectation) and all(expectation in reason for reason in expected)


def test_images_without_objects_do_not_count(rows):
    assert place(facts(1_000, empty=9_000), rows).row.name == "1k"


def test_what_the_paper_does_not_tell(rows):
    silent = " ".join(place(facts(10_000), rows).silent)
    assert "does not publish: learning rate" in silent and "between 3.5k and 10k" in silent
    assert "Domains" in silent and "Rare" not in silent
    rare = facts(10_000)._replace(categories=[CategoryFacts("owl", 4, 9), *facts(10_000).categories[1:]])
    assert "1 category is in fewer than 10 images (owl (4))" in place(rare, rows).silent[1]
    assert "does not publish" not in " ".join(place(facts(118_287), rows).silent)


@pytest.mark.parametrize(
    ("counts", "configs", "schedules", "epochs"),
    [
        ((118_287, *COCO), ("scratch_6x.yaml", "finetune_3x.yaml"), ("6x", "3x"), (73.04, 36.52)),
        ((35_000, *COCO), ("scratch_35k.yaml", "finetune_35k.yaml"), ("6x", "2x"), (246.9, 82.3)),
        (
            (10_000, *COCO),
            ("scratch_10k.yaml", "finetune_10k.yaml"),
            ("220k iterations", "60k iterations"),
            (352, 96),
        ),
        ((236_574, *COCO), ("scratch_6x.yaml", "finetune_3x.yaml"), ("73ep", "37ep"), (73, 37)),
        ((500, *COCO), ("scratch_1k.yaml", "finetune_1k.yaml"), ("3520ep", "960ep"), (3520, 960)),
    ],
)
def test_routes(rows, counts, configs, schedules, epochs):
    data = facts(*counts)
    routes = plan_routes(data, place(data, rows), rows, parse_length)
    assert tuple(route.config for route in routes) == configs
    assert tuple(route.schedule for route in routes) == schedules
    assert [route.epochs for route in routes] == pytest.approx(epochs, abs=0.05)
    for route in routes:
        assert route.images == pytest.approx(parse_length(route.schedule, counts[0]))


def test_drops_of_another_length_keep_their_share(rows):
    """20k of 220k and of 60k iterations before the end."""
    data = facts(500)
    routes = plan_routes(data, place(data, rows), rows, parse_length)
    assert [route.drops for route in routes] == [(0.909,), (0.667,)]


def test_cost_by_hand(rows, paper):
    """6x on 8 V100: 540k x 0.338 s = 50.7 h; 3x: 270k x 0.309 s = 23.175 h, and twice that on 4 GPUs."""
    data = facts(118_287)
    verdict = place(data, rows)
    scratch, tuned = plan_routes(data, verdict, rows, parse_length)
    speed = published_speed(paper, verdict.row)
    assert "published for 8 V100" in speed.source and "0.338 and 0.309" in speed.source
    assert price_of(scratch, speed, 8) == (pytest.approx(50.7), pytest.approx(405.6), None)
    assert price_of(tuned, speed, 4, 2.0) == tuple(pytest.approx(x) for x in (46.35, 185.4, 370.8))
    # 1 s for 4 images on each of 2 GPUs: 8.64M images in 1.08M iterations.
    assert price_of(scratch, given_speed(1.0, 4), 2).hours == pytest.approx(300)


def test_resnet_101_is_scaled_by_published_ratios(rows, paper):
    """Detectron's 1.243 to 1.087 s and 1.171 to 1.033 s on P100."""
    speed = published_speed(paper, rows[-1])
    assert speed.random == pytest.approx(0.338 / 2 * 1.243 / 1.087)
    assert speed.pretrained == pytest.approx(0.309 / 2 * 1.171 / 1.033)
    assert "ResNet-101" in speed.source
