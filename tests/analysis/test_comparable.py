"""What may differ between runs of one comparison, and what may not."""

import pytest
from made_runs import make_run

from rethink_pretrain.analysis.comparable import ABSENT, check_comparable, differences, obstacles
from rethink_pretrain.analysis.runs import read_runs
from rethink_pretrain.errors import UserError


def pair(tmp_path, first=None, second=None):
    return read_runs([make_run(tmp_path / "a", **(first or {})), make_run(tmp_path / "b", **(second or {}))])


def test_start_length_seed_and_machine_may_differ(tmp_path):
    runs = pair(
        tmp_path,
        {
            "RETHINK__SCHEDULE": "1x",
            "RETHINK__WATCH": {"LOG_PERIOD": 5},
            "RETHINK__CLASSIFIER": {"MIN_AREA": 0.1},
            "MODEL__DEVICE": "cpu",
        },
        {
            "weights": "w.pth",
            "aps": (1, 2, 3),
            "SEED": 7,
            "RETHINK__SCHEDULE": "2x",
            "RETHINK__WATCH": {"LOG_PERIOD": 20},
            "MODEL__DEVICE": "cuda",
        },
    )
    assert obstacles(runs) == []
    check_comparable(runs)
    assert {difference.key: difference.values for difference in differences(runs)} == {
        "MODEL.WEIGHTS": ["", "w.pth"],
        "MODEL.BACKBONE.FREEZE_AT": [0, 2],
        "MODEL.DEVICE": ["cpu", "cuda"],
        "OUTPUT_DIR": [str(tmp_path / "a"), str(tmp_path / "b")],
        "RETHINK.CLASSIFIER.MIN_AREA": [0.1, ABSENT],
        "RETHINK.SCHEDULE": ["1x", "2x"],
        "RETHINK.WATCH.LOG_PERIOD": [5, 20],
        "SEED": [1, 7],
        "SOLVER.MAX_ITER": [200, 300],
    }


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("SOLVER__BASE_LR", (0.02, 0.01)),
        ("SOLVER__IMS_PER_BATCH", (16, 8)),
        ("SOLVER__WARMUP_ITERS", (500, 1000)),
        ("DATASETS__TRAIN", (["coco_2017_train"], ["coco_2017_train@10k"])),
        ("DATASETS__TEST", (["coco_2017_val"], [])),
        ("TEST__DETECTIONS_PER_IMAGE", (100, 300)),
        ("INPUT__MIN_SIZE_TRAIN", ([800], [640, 800])),
        ("MODEL__PIXEL_STD", ([1.0, 1.0, 1.0], [57.4, 57.1, 58.4])),
        ("RETHINK__INIT", ("msra", "detectron2")),
    ],
)
def test_the_recipe_may_not(tmp_path, key, values):
    runs = pair(tmp_path, {key: values[0]}, {key: values[1]})
    name = key.replace("__", ".")
    assert obstacles(runs) == [f"{name} is {values[0]} in a, {values[1]} in b"]
    with pytest.raises(UserError, match=f"{name} is .* --force") as error:
        check_comparable(runs)
    assert "\n" not in str(error.value)


def test_a_key_that_one_does_not_have(tmp_path):
    runs = pair(tmp_path, {"RETHINK__INIT": "msra"})
    assert obstacles(runs) == [f"RETHINK.INIT is msra in a, {ABSENT} in b"]


def test_many_and_long_reasons_stay_one_short_line(tmp_path):
    runs = pair(tmp_path, {f"KEY{i}": "x" * 500 for i in range(8)}, {f"KEY{i}": "" for i in range(8)})
    with pytest.raises(UserError, match=r'KEY0 is xxx.* … .*xxx in a, "" in b; .*; and 3 more\.') as error:
        check_comparable(runs)
    assert len(str(error.value)) < 700


def test_many_runs_of_one_value_are_counted(tmp_path):
    runs = [make_run(tmp_path / name, SOLVER__MOMENTUM=0.9) for name in "abcde"]
    runs.append(make_run(tmp_path / "odd", SOLVER__MOMENTUM=0.8))
    (reason,) = obstacles(read_runs(runs))
    assert reason == "SOLVER.MOMENTUM is 0.9 in a, b and 3 more, 0.8 in odd"


@pytest.mark.parametrize("key", ["RETHINK__MICRO_BATCH", "RETHINK__IMAGES_PER_GPU"])
def test_how_a_batch_is_split_matters_to_its_statistics(tmp_path, key):
    for norm, allowed in (("GN", True), ("FrozenBN", True), ("SyncBN", False), ("BN", False)):
        common = {"MODEL__FPN": {"NORM": norm}}
        runs = pair(tmp_path / norm, {key: 1, **common}, {key: 2, **common})
        assert (not obstacles(runs)) == allowed


def test_a_run_without_a_config(tmp_path):
    runs = pair(tmp_path, {}, {"config": False})
    assert obstacles(runs) == ["b has no config.yaml, so how it was trained is unknown"]
    with pytest.raises(UserError, match=r"unknown\. ARM=RUN names what such a run started from; --force"):
        check_comparable(runs)


def test_a_run_without_a_config_whose_arm_is_named(tmp_path):
    paths = [make_run(tmp_path / "a"), make_run(tmp_path / "b", config=False)]
    assert obstacles(read_runs(paths, [None, "tuned"])) == []


def test_what_weights_demand_may_differ_between_arms_alone(tmp_path):
    """Three runs, two of them of one arm, which agree or not."""
    torch_like = {
        "weights": "torch.pth",
        "MODEL__PIXEL_STD": [57.4],
        "MODEL__RESNETS": {"STRIDE_IN_1X1": False},
    }
    scratch = {"MODEL__PIXEL_STD": [1.0], "MODEL__RESNETS": {"STRIDE_IN_1X1": True}}
    paths = [make_run(tmp_path / "a", **torch_like), make_run(tmp_path / "b", **scratch)]
    assert obstacles(read_runs([*paths, make_run(tmp_path / "c", **scratch)])) == []
    other = make_run(tmp_path / "d", **{**scratch, "MODEL__PIXEL_STD": [2.0]})
    (reason,) = obstacles(read_runs([*paths, other]))
    assert reason.startswith("MODEL.PIXEL_STD is [57.4] in a, [1.0] in b, [2.0] in d")


def test_data_of_one_name_and_another_content(tmp_path):
    def sessions(digest):
        return [{"data": [{"name": "own_train", **({"digest": digest} if digest else {})}]}]

    runs = pair(tmp_path / "1", {"sessions": sessions("aa")}, {"sessions": sessions("bb")})
    assert obstacles(runs) == ["digest of the training data is own_train aa in a, own_train bb in b"]
    for number, other in enumerate([sessions("aa"), sessions(""), None], 2):
        runs = pair(tmp_path / str(number), {"sessions": sessions("aa")}, {"sessions": other})
        assert obstacles(runs) == []


def test_the_batch_that_was_scaled_after_the_config(tmp_path):
    runs = pair(tmp_path, *({"sessions": [{"recipe": {"images_per_step": batch}}]} for batch in (16, 32)))
    assert obstacles(runs) == ["SOLVER.IMS_PER_BATCH is 16 in a, 32 in b"]


def test_speed_may_differ_but_for_the_precision(tmp_path):
    """Runs of before the key had fp32."""
    fast = {"PRECISION": "fp32", "MASK_TARGETS": True, "MEMORY_FORMAT": "channels_last"}
    assert obstacles(pair(tmp_path / "1", {}, {"RETHINK__SPEED": fast})) == []
    (reason,) = obstacles(pair(tmp_path / "2", {}, {"RETHINK__SPEED": {**fast, "PRECISION": "bf16"}}))
    assert reason == "RETHINK.SPEED.PRECISION is fp32 in a, bf16 in b"
