"""results/paper.json against the numbers of the paper written out here, and its readers."""

import pytest
from conftest import REPOSITORY

from rethink_pretrain.analysis.paper import (
    Experiment,
    Paper,
    check_experiments,
    describe_cost,
    describe_expected,
    read_paper,
)
from rethink_pretrain.errors import UserError

CONFIGS = REPOSITORY / "configs"
# Table 1, 2x to 6x.
TABLE_1 = {
    "scratch_{}.yaml": [36.8, 39.5, 40.6, 40.7, 41.3],
    "finetune_{}.yaml": [40.3, 40.8, 40.9, 40.9, 41.1],
    "paper/scratch_R101_gn_{}.yaml": [38.2, 41.0, 41.8, 42.2, 42.7],
    "paper/finetune_R101_gn_{}.yaml": [41.8, 42.3, 42.3, 41.9, 42.2],
}


@pytest.fixture(scope="module")
def paper() -> Paper:
    return read_paper(REPOSITORY / "results" / "paper.json")


@pytest.mark.parametrize("pattern", TABLE_1)
def test_table_1(paper, pattern):
    first = [paper.numbers_of(pattern.format(f"{n}x"))[0] for n in range(2, 7)]
    assert all(number.from_paper for number in first)
    assert [number.metrics["box AP"] for number in first] == TABLE_1[pattern]


def test_table_2_differences(paper):
    """The printed differences are those of the printed rows."""
    rows = {n.row: n.metrics for n in paper.numbers if n.experiment == "table2"}
    for model in ("R50", "R101"):
        for name, difference in rows[f"{model} difference"].items():
            found = rows[f"{model} random"][name] - rows[f"{model} pre-train"][name]
            assert found == pytest.approx(difference, abs=0.05)


def test_tables_and_figures_agree(paper):
    """Both baselines of figure 5 are table 2's, and its R101 with train aug is table 3's."""
    for config in ("scratch_6x.yaml", "finetune_6x.yaml", "paper/scratch_R101_gn_trainaug_9x.yaml"):
        values = {
            number.metrics[name]
            for number in paper.numbers_of(config)
            if number.from_paper
            for name in ("mask AP",)
            if name in number.metrics
        }
        assert len(values) == 1


def test_every_experiment_has_configs_that_exist(paper):
    identifiers = {experiment.id for experiment in paper.experiments}
    assert identifiers >= {"table1", "table2", "table3", *(f"figure{n}" for n in (1, 3, 4, 5, 6, 7, 8))}
    assert identifiers >= {"vgg", "voc"}
    for experiment in paper.experiments:
        assert experiment.configs
        assert all((CONFIGS / config).is_file() for config in experiment.configs)


def test_every_number_of_a_config_is_of_one_that_exists(paper):
    assert all((CONFIGS / number.config).is_file() for number in paper.numbers if number.config)
    assert {number.label for number in paper.numbers} <= {"verified", "read off the figure", "inferred"}


def test_cost(paper):
    """540k x 1.087 s = 163.05 h."""
    assert describe_cost(paper, "scratch_6x.yaml", 540_000).startswith("about 163 h on 8 P100")
    assert describe_cost(paper, "paper/scratch_VGG16_11x.yaml", 990_000).startswith("not published")


def test_expected(paper):
    text = describe_expected(paper, "paper/scratch_R50_syncbn_2x.yaml")
    assert text == "box AP about 36 (paper, figure 4, read off the figure)."
    assert describe_expected(paper, "scratch_1x.yaml") is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"numbers": [{"x": 1}]}'])
def test_another_file(tmp_path, content):
    path = tmp_path / "paper.json"
    path.write_text(content)
    with pytest.raises(UserError, match="not the file of reported numbers"):
        read_paper(path)


def test_experiments_without_configs_are_named(tmp_path):
    (tmp_path / "a.yaml").touch()
    rows = {"t1": ["a.yaml"], "t2": [], "t3": ["a.yaml", "b.yaml"]}
    paper = Paper([], [Experiment(i, "", configs) for i, configs in rows.items()], [])
    assert check_experiments(paper, tmp_path) == [
        "experiment t2 of the paper has no config",
        "b.yaml, listed for experiment t3, does not exist",
    ]
