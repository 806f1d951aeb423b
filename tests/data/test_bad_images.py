"""Counting bad images, and what stands in for them."""

import itertools
import logging

import pytest

from rethink_pretrain.data.bad_images import BadImage, BadImages, describe_bad, replacement
from rethink_pretrain.errors import UserError


def bad(number: int) -> BadImage:
    return BadImage(number, f"{number}.jpg", f"Cannot read {number}.jpg: truncated.")


@pytest.mark.parametrize(
    ("num_images", "max_share", "allowed"),
    [
        (1000, 0.01, 10),
        (1099, 0.01, 10),
        (24, 0.01, 3),
        (24, 0.5, 12),
        (1000, 0.0, 0),
        (24, 0.0, 0),
        (5, 1.0, 5),
        (100, 0.29, 29),
    ],
)
def test_more_than_the_share_end_the_run(num_images, max_share, allowed):
    counted = BadImages(num_images, max_share)
    for number in range(allowed):
        counted.add(bad(number))
        counted.add(bad(number))  # at every visit again: no other image
    assert len(counted) == allowed
    with pytest.raises(UserError) as error:
        counted.add(bad(allowed))
    for part in (f"{allowed + 1} of {num_images} training images", "MAX_BAD_IMAGES", f"{allowed}.jpg: trunc"):
        assert part in str(error.value)


def test_each_is_logged_and_reported_once(caplog):
    counted, reported = BadImages(1000, 0.01), []
    counted.on_new = reported.append
    with caplog.at_level(logging.WARNING, "rethink_pretrain.data.bad_images"):
        for number in (4, 4, 7, 4):
            counted.add(bad(number))
    assert reported == [bad(4), bad(7)]
    assert len(caplog.records) == 2
    assert all(part in caplog.text for part in ("image 4.", "4.jpg: truncated", "image 7."))


def test_the_one_too_many_is_reported_too():
    counted, reported = BadImages(1000, 0.0), []
    counted.on_new = reported.append
    with pytest.raises(UserError):
        counted.add(bad(1))
    assert reported == [bad(1)]


def test_the_same_id_in_two_sets_is_two_images():
    counted = BadImages(1000, 0.01)
    counted.add(BadImage(1, "one/a.jpg", "broken"))
    counted.add(BadImage(1, "other/a.jpg", "broken"))
    assert len(counted) == 2


def test_without_an_id_the_file_is_its_name():
    assert describe_bad({"file_name": "a.jpg"}, UserError("broken")) == BadImage("a.jpg", "a.jpg", "broken")
    assert describe_bad({"file_name": "a.jpg", "image_id": 3}, UserError("broken")).image_id == 3


def test_replacements_depend_on_all_they_are_given_and_reach_every_image():
    drawn = [
        replacement(seed, position, attempt, 50)
        for seed in (0, 1)
        for position in range(99)
        for attempt in (1, 2)
    ]
    assert drawn == [
        replacement(seed, position, attempt, 50)
        for seed in (0, 1)
        for position in range(99)
        for attempt in (1, 2)
    ]
    assert set(drawn) == set(range(50))
    # Of 198 neighbours about 1 in 50 are equal by chance.
    assert sum(a == b for a, b in itertools.pairwise(drawn)) < 30
    assert replacement(7, 123, 1, 24) == 6  # the same on every machine
