"""What runs have seen, from counters, from iterations, and from what their weights tell."""

import json

import pytest
from made_runs import host_row, make_run

from rethink_pretrain.analysis.accounting import (
    IMAGENET,
    NONE_SEEN,
    Account,
    Phase,
    Samples,
    account_of_run,
    as_json,
    describe_samples,
    mean_samples,
    pretraining_of,
    pretraining_phase,
    samples_of_run,
    short_number,
)
from rethink_pretrain.analysis.runs import read_run

GN = "catalog://ImageNetPretrained/FAIR/R-50-GN"


def counted_rows(*iterations):
    """Two images, 14 objects and 5000 px a step."""
    counts = {"samples/images": 2, "samples/instances": 14, "samples/pixels": 5000}
    return [host_row(i) | {key: value * (i + 1) for key, value in counts.items()} for i in iterations]


class TestSamples:
    def test_sum_is_by_kind_and_unknown_stays(self):
        assert Samples(1, 2, None) + Samples(10, 20, 30) == (11, 22, None)
        assert Samples(1, 2, 3) + NONE_SEEN == (1, 2, 3)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (0, "0"),
            (999, "999"),
            (999.6, "1.0 k"),
            (1234, "1.2 k"),
            (999_949, "999.9 k"),
            (999_960, "1.0 M"),
            (9.4996e12, "9.5 T"),
            (1.5e16, "15,000.0 T"),
        ],
    )
    def test_short_number(self, value, expected):
        assert short_number(value) == expected

    def test_unknown_in_words(self):
        assert describe_samples(Samples(5, None, 2e6)) == ["5", "unknown", "2.0 M"]
        assert describe_samples(None) == ["unknown"] * 3


class TestSamplesOfRun:
    def test_the_record_of_the_last_session_counts(self, tmp_path):
        first, last = ({"samples": {"images": n, "instances": 7 * n, "pixels": 900 * n}} for n in (40, 100))
        run = read_run(make_run(tmp_path / "run", sessions=[first, last], rows=counted_rows(19, 39)))
        assert samples_of_run(run) == (100, 700, 90_000)

    def test_a_session_that_was_killed_leaves_its_rows(self, tmp_path):
        ended = {"samples": {"images": 40, "instances": 280, "pixels": 100}}
        run = read_run(make_run(tmp_path / "run", sessions=[ended, {}], rows=counted_rows(19, 39)))
        assert samples_of_run(run) == (80, 560, 200_000)

    def test_an_evaluation_after_the_last_step_is_no_step(self, tmp_path):
        rows = [*counted_rows(19), {"iteration": 20, "bbox/AP": 3.0}]
        assert samples_of_run(read_run(make_run(tmp_path / "run", rows=rows))) == (40, 280, 100_000)

    def test_counters_that_stop_early_do_not_count(self, tmp_path):
        """Another Detectron2 has continued the run."""
        run = read_run(make_run(tmp_path / "run", rows=[*counted_rows(19), host_row(39)]))
        assert samples_of_run(run) == (40 * 16, None, None)

    def test_a_run_of_the_host_has_images_alone(self, tmp_path):
        run = read_run(make_run(tmp_path / "run", aps=(1.0, 2.0, 3.0)))
        assert samples_of_run(run) == (300 * 16, None, None)
        assert "300 iterations x 16 images" in account_of_run(run).phases[1].source

    def test_without_a_batch_nothing_is_known(self, tmp_path):
        assert samples_of_run(read_run(make_run(tmp_path / "run", config=False))) is None

    @pytest.mark.parametrize("bad", [-1, "7", True, None, float("nan"), float("inf")])
    def test_what_is_no_count_is_unknown(self, tmp_path, bad):
        samples = {"images": 40, "instances": bad, "pixels": 50}
        run = read_run(make_run(tmp_path / "run", sessions=[{"samples": samples}]))
        assert samples_of_run(run) == (40, None, 50)


class TestPretrainingOf:
    def test_random_weights_cost_nothing(self, tmp_path):
        assert pretraining_of(read_run(make_run(tmp_path / "run"))) == (0, 0, 0)

    def test_what_the_weights_tell_comes_first(self, tmp_path):
        told = {"images": 12_800.0, "instances": 12_800.0, "pixels": 5e7, "recipe": "8 classes"}
        sessions = [{"weights": {"path": GN, "pretraining": told}}, {"weights": None}]
        run = read_run(make_run(tmp_path / "run", weights=GN, sessions=sessions))
        assert pretraining_of(run) == (12_800, 12_800, 5e7)
        assert account_of_run(run).phases[0].source == "told by the weights: 8 classes"

    def test_imagenet_by_name(self, tmp_path):
        run = read_run(make_run(tmp_path / "run", weights=GN))
        assert pretraining_of(run) == (128_116_700, 128_116_700, 128_116_700 * 224 * 224)
        assert "assumed: the paper's figure 2" in account_of_run(run).phases[0].source

    def test_no_config_is_unknown(self, tmp_path):
        assert pretraining_of(read_run(make_run(tmp_path / "run", config=False))) is None

    @pytest.mark.parametrize(
        ("weights", "samples"),
        [
            ("", NONE_SEEN),
            ("detectron2://ImageNetPretrained/MSRA/R-101.pkl", IMAGENET),
            ("detectron2://ImageNetPretrained/torchvision/R-50.pkl", IMAGENET),
            ("catalog://ImageNetPretrained/FAIR/X-101-32x8d", IMAGENET),
            ("https://dl.fbaipublicfiles.com/detectron2/ImageNetPretrained/MSRA/R-50.pkl", IMAGENET),
            ("catalog://ImageNetPretrained/FAIR/X-152-32x8d-IN5k", None),
            ("detectron2://ImageNetPretrained/FAIR/X-152-32x8d-IN5k.pkl", None),
            ("detectron2://COCO-Detection/faster_rcnn_R_50_FPN_1x/137257794/model_final_b275ba.pkl", None),
            ("weights/R-50-GN.pth", None),
        ],
    )
    def test_names(self, weights, samples):
        assert pretraining_phase(weights).samples == samples

    def test_a_record_without_images_tells_nothing(self):
        assert pretraining_phase("mine.pth", {"pixels": 5.0}).samples is None


class TestAccount:
    def test_total(self):
        phases = [Phase("pre-training", Samples(1, 2, 3), ""), Phase("training", Samples(4, 5, 6), "")]
        assert Account("a", phases).total == (5, 7, 9)
        assert Account("a", [phases[0], Phase("training", None, "")]).total is None

    def test_json_is_plain_and_unknown_is_null(self):
        account = Account(
            "a", [Phase("pre-training", None, "x"), Phase("training", Samples(4, None, 6), "y")]
        )
        nothing = {"images": None, "instances": None, "pixels": None}
        assert json.loads(json.dumps(as_json([account]))) == {
            "entries": [
                {
                    "name": "a",
                    "phases": [
                        {"name": "pre-training", **nothing, "source": "x"},
                        {"name": "training", "images": 4, "instances": None, "pixels": 6, "source": "y"},
                    ],
                    "total": nothing,
                }
            ]
        }


class TestMeanSamples:
    def test_of_two_runs(self):
        runs = [Samples(10, 30, 500), Samples(20, 31, 700)]
        assert mean_samples(runs) == Samples(15, 30.5, 600)

    def test_a_count_unknown_of_one_is_unknown_of_all(self):
        assert mean_samples([Samples(10, None, 500), Samples(20, 31, 700)]) == Samples(15, None, 600)
        assert mean_samples([Samples(10, 30, 500), None]) is None
