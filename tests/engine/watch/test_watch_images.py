"""Pictures of a small COCO set whose results file the test writes; read back by TensorBoard's own reader."""

import io
import json

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.engine import hooks
from detectron2.utils.events import TensorboardXWriter
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from watch_loop import Loop, aps

from rethink_pretrain.analysis.draw import draw_comparison
from rethink_pretrain.data.datasets.subsets import choose
from rethink_pretrain.engine.watch.images import PredictionImages


def annotate(number, image_id, category):
    polygon = [[10, 10, 50, 10, 50, 40, 10, 40]]
    ids = {"id": number, "image_id": image_id, "category_id": category}
    return ids | {"segmentation": polygon, "bbox": [10, 10, 40, 30], "area": 1200, "iscrowd": 0}


@pytest.fixture
def dataset(tmp_path):
    """Six images, the last without objects; categories 7 and 9."""
    rng = np.random.default_rng(0)
    images = []
    for number in range(1, 7):
        Image.fromarray(rng.integers(0, 255, (80, 100, 3), np.uint8)).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 80, "width": 100})
    document = {
        "images": images,
        "annotations": [annotate(number, number, 7 + 2 * (number % 2)) for number in range(1, 6)],
        "categories": [{"id": 7, "name": "seven"}, {"id": 9, "name": "nine"}],
    }
    (tmp_path / "set.json").write_text(json.dumps(document))
    register_coco_instances("watched_set", {}, str(tmp_path / "set.json"), str(tmp_path))
    yield "watched_set"
    DatasetCatalog.remove("watched_set")
    MetadataCatalog.remove("watched_set")


class WithEvents(Loop):
    def __init__(self, values, watched, output):
        super().__init__(values, watched, output)
        self.register_hooks([hooks.PeriodicWriter([TensorboardXWriter(str(output / "events"))], 1)])


def read_images(folder):
    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    return {tag: events.Images(tag) for tag in events.Tags()["images"]}


def test_predictions_beside_the_ground_truth(dataset, tmp_path):
    results = tmp_path / "results.json"
    boxes = {score: [5 + 50 * score, 20, 30, 30] for score in (0.9, 0.1)}
    found = [
        {"image_id": image, "category_id": 9, "bbox": box, "score": score}
        for image in range(1, 6)
        for score, box in boxes.items()
    ]
    results.write_text(json.dumps(found))
    hook = PredictionImages(dataset, 2, results)
    WithEvents(aps(1.0, 2.0), [hook], tmp_path).run()

    chosen = choose(range(1, 6), 2)
    shown = read_images(tmp_path / "events")
    assert set(shown) == {f"predictions/{image}.png" for image in chosen}
    for image in chosen:
        assert [event.step for event in shown[f"predictions/{image}.png"]] == [1, 4]
        (event, _) = shown[f"predictions/{image}.png"]
        stored = np.asarray(Image.open(tmp_path / f"{image}.png"))
        expected = draw_comparison(
            stored,
            [{**annotate(0, image, 7 + 2 * (image % 2)), "category_id": image % 2}],  # classes from 0
            [{"category_id": 1, "bbox": boxes[0.9], "score": 0.9}],
            {0: "seven", 1: "nine"},
        )
        picture = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        np.testing.assert_array_equal(picture, expected)


def test_other_evaluators_have_no_pictures(dataset, tmp_path):
    loop = Loop(aps(1.0), [PredictionImages(dataset, 2, tmp_path / "none.json")], tmp_path).run()
    assert loop.storage._vis_data == []


def test_between_evaluations_there_is_nothing_to_draw(dataset, tmp_path):
    (tmp_path / "results.json").write_text("[]")
    loop = Loop([None], [PredictionImages(dataset, 2, tmp_path / "results.json")], tmp_path).run()
    assert loop.storage._vis_data == []
