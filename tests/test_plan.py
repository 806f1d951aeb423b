"""The planner as a user runs it, on written files."""

import importlib.util
import itertools
import json
import shlex
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY, TOY_CONFIG

from rethink_pretrain.config import load_config


@pytest.fixture
def run(monkeypatch, capsys):
    """The tool in this process; its standard output."""
    spec = importlib.util.spec_from_file_location("plan", REPOSITORY / "tools" / "plan.py")
    plan = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plan)

    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["plan.py", *map(str, arguments)])
        plan.main()
        return capsys.readouterr().out

    return run


def write_set(path: Path, images: int, per_image: float, categories: int) -> Path:
    """A file in COCO's format with boxes alone, of images of 640 x 480 px."""
    annotations = [
        {
            "id": i + 1,
            "image_id": int(i / per_image) + 1,
            "category_id": i % categories + 1,
            "bbox": [1, 1, 9, 9],
        }
        for i in range(round(images * per_image))
    ]
    listed = [{"id": i + 1, "file_name": f"{i}.jpg", "width": 640, "height": 480} for i in range(images)]
    names = [{"id": i + 1, "name": f"kind {i}"} for i in range(categories)]
    path.write_text(json.dumps({"images": listed, "annotations": annotations, "categories": names}))
    return path


def command_lines(text: str) -> list[list[str]]:
    """The commands at the end, as a shell reads them."""
    return [shlex.split(line) for line in text.partition("Commands\n")[2].replace("\\\n", " ").splitlines()]


def test_ten_thousand_images(run, tmp_path):
    path = write_set(tmp_path / "mine.json", 10_000, 7.27, 80)
    text = run("--train-json", path, "--json", tmp_path / "plan.json")
    flat = " ".join(text.split())
    assert flat.startswith("known: both routes end equal (figure 7: 25.9 against 26.0 box AP on 10k images).")
    assert "published for 8 V100" in flat and "hours on 8 GPUs 20.7 5.2" in flat
    assert all(len(line) <= 80 for line in text.partition("Commands")[0].splitlines())
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["data"]["objects"] == 72_700 and plan["verdict"]["certainty"] == "known"
    assert [t["schedule"] for t in plan["trainings"]] == ["220k iterations", "60k iterations"]
    assert plan["trainings"][0]["hours"] == pytest.approx(220_000 * 0.338 / 3600)
    assert len(plan["data"]["categories"]) == 80 and len(plan["scale"]) == 6


@pytest.mark.parametrize(
    ("images", "batch"), [(1_000, (8, 2)), (300, (8, 2)), (5_000, (2, 4)), (40, (1, 1))], ids=str
)
def test_commands_are_right(run, tmp_path, images, batch):
    """Their configs load with their options, have the batch, and train as long as the table says."""
    path = write_set(tmp_path / "my set.json", images, 7.27, 80)
    gpus, per_gpu = batch
    flags = ("--gpus", gpus, "--images-per-gpu", per_gpu, "--json", tmp_path / "plan.json")
    lines = command_lines(run("--train-json", path, *flags))
    trainings = json.loads((tmp_path / "plan.json").read_text())["trainings"]
    assert [line[1] for line in lines] == [
        "tools/train_net.py",
        "tools/train_net.py",
        "tools/compare_runs.py",
    ]
    for line, training in zip(lines, trainings):
        assert line[line.index("--train-json") + 1] == str(path)
        assert line[line.index("--num-gpus") + 1] == str(gpus)
        opts = line[line.index("RETHINK.SCHEDULE") :]
        assert ("MODEL.MASK_ON", "False") in itertools.pairwise(opts)
        assert gpus * per_gpu == 16 or ("RETHINK.IMAGES_PER_GPU", str(per_gpu)) in itertools.pairwise(opts)
        opts += ["RETHINK.IMAGES_PER_EPOCH", str(images), "SOLVER.IMS_PER_BATCH", str(gpus * per_gpu)]
        cfg = load_config(REPOSITORY / line[line.index("--config-file") + 1], opts=opts)
        assert cfg.SOLVER.MAX_ITER * gpus * per_gpu == pytest.approx(training["images"], rel=0.01)


def test_a_given_speed_and_a_price(run, tmp_path):
    """220k iterations of 16 images at 0.5 s: 30.6 h on 8 GPUs, 244 GPU-hours, 489 at 2 each."""
    path = write_set(tmp_path / "mine.json", 1_000, 7.27, 80)
    text = run("--train-json", path, "--seconds-per-iteration", 0.5, "--price-per-gpu-hour", 2)
    flat = " ".join(text.split())
    assert "random weights end worse" in flat and "3.5 against 9.9 box AP on 1k images" in flat
    assert "hours on 8 GPUs 30.6 8.3" in flat and "GPU-hours 244 66.7" in flat and "cost 489 133" in flat
    assert "0.5 s per iteration, as given" in flat and "does not publish its schedule" in flat


def test_a_registered_subset(run, datasets):
    text = run("--dataset", "toy_train@50%")
    assert text.startswith("unknown: ") and "12 images" in text
    line = command_lines(text)[0]
    assert line[line.index("DATASETS.TRAIN") + 1] == "('toy_train@50%',)" and "--train-json" not in line


@pytest.mark.parametrize("own", [True, False])
def test_probe(run, datasets, tmp_path, own):
    toy = datasets / "toy"
    images = ("--train-images", toy / "train") if own else ()
    flags = ("--probe", "--config-file", TOY_CONFIG, "--images-per-gpu", 1, "--json", tmp_path / "plan.json")
    flat = " ".join(run("--train-json", toy / "train.json", *images, *flags).split())
    assert (
        "measured here, one process on" in flat and ("of your images" if own else "random images of") in flat
    )
    plan = json.loads((tmp_path / "plan.json").read_text())
    speed, (scratch, _) = plan["speed"], plan["trainings"]
    assert speed["random"] == speed["pretrained"] > 0
    assert f"hours on 8 {speed['unit']}s" in flat and speed["unit"] in ("GPU", "CPU")
    assert scratch["gpu_hours"] == pytest.approx(scratch["images"] * speed["random"] / 3600)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--train-json", "absent.json"), 1, "error: Cannot read absent.json: No such file or directory."),
        (("--dataset", "toy_trian"), 1, "error: Unknown data set 'toy_trian'"),
        (("--train-json", "x", "--json", "absent/plan.json"), 1, "error: The folder absent does not exist."),
        ((), 2, "one of the arguments --train-json --dataset is required"),
        (("--train-json", "x", "--gpus", "0"), 2, "0 is less than 1"),
        (("--train-json", "x", "--gpus", "two"), 2, "invalid whole value: 'two'"),
        (("--train-json", "x", "--seconds-per-iteration", "nan"), 2, "nan is not a number above 0"),
        (("--train-json", "x", "--config-file", "c"), 2, "--config-file is what --probe measures"),
        (("--dataset", "x", "--train-images", "c"), 2, "--train-images belongs to --train-json"),
    ],
)
def test_mistakes_are_one_line(run, capsys, datasets, arguments, status, message):
    with pytest.raises(SystemExit) as error:
        run(*arguments)
    assert error.value.code == status
    assert message in capsys.readouterr().err.splitlines()[-1]
