"""The table at the start of a run, for numbers that can be checked by hand."""

import pytest
from conftest import REPOSITORY

from rethink_pretrain.config import load_config
from rethink_pretrain.engine import describe_recipe, format_recipe

SCRATCH_6X = REPOSITORY / "configs" / "scratch_6x.yaml"


def test_the_papers_recipe():
    """8 GPUs x 2 images, 540k iterations: 73.04 epochs of 118,287 images."""
    recipe = describe_recipe(load_config(SCRATCH_6X), 8)
    assert recipe.pop("epochs") == pytest.approx(73.04, abs=0.005)
    assert recipe.pop("warmup_factor") == pytest.approx(1 / 3)
    assert recipe == {
        "processes": 8,
        "images_per_step": 16,
        "images_per_process": 2,
        "micro_batches": 1,
        "learning_rate": 0.02,
        "warmup_iterations": 500,
        "iterations": 540_000,
        "drops": [480_000, 520_000],
        "drop_factor": 0.1,
        "images": 8_640_000,
        "evaluation_period": 20_000,
        "checkpoint_period": 5000,
    }


def test_micro_batches_on_fewer_gpus():
    recipe = describe_recipe(load_config(SCRATCH_6X, opts=["RETHINK.MICRO_BATCH", "2"]), 2)
    assert (recipe["images_per_process"], recipe["micro_batches"]) == (8, 4)
    assert "16 (2 x 8, in 4 micro-batches each)" in format_recipe(recipe)


def test_the_table_says_it_all():
    table = format_recipe(describe_recipe(load_config(SCRATCH_6X), 8)).splitlines()
    assert [" ".join(row.split()) for row in table] == [
        "images per step 16 (8 x 2)",
        "learning rate 0.02, x0.1 at 480000, 520000",
        "warm-up 500 iterations from x0.333",
        "iterations 540000",
        "images 8.64M, 73.0 epochs",
        "evaluation every 20000",
        "checkpoint every 5000",
    ]
