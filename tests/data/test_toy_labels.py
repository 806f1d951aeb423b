"""Keypoints and semantic labels of the toy set, against geometry by hand, the annotations, and the host."""

import json

import numpy as np
import pytest
import shapely
from detectron2.data import DatasetCatalog, MetadataCatalog, detection_utils
from PIL import Image
from pycocotools.coco import COCO

from rethink_pretrain.data.datasets import toy_labels
from rethink_pretrain.data.datasets.toy_render import BACKGROUNDS

DIAMOND = np.array([[20.0, 5], [35.0, 20], [20.0, 35], [5.0, 20]])
FRAME = shapely.box(0, 0, 64, 48)


class TestKeypoints:
    def test_points_of_a_diamond(self):
        expected = [[20, 5], [35, 20], [20, 35], [5, 20], [20, 20]]
        assert toy_labels.keypoint_points(DIAMOND).tolist() == pytest.approx(np.array(expected))

    def test_visible(self):
        found = toy_labels.keypoint_annotation(DIAMOND, shapely.Polygon(), FRAME)
        assert found["keypoints"] == [20, 5, 2, 35, 20, 2, 20, 35, 2, 5, 20, 2, 20, 20, 2]
        assert found["num_keypoints"] == 5

    def test_occluded_and_outside(self):
        """A neighbour in front of the right half; the lower point is below the picture."""
        found = toy_labels.keypoint_annotation(DIAMOND + [0, 20], shapely.box(25, 0, 64, 64), FRAME)
        assert found["keypoints"][3:6] == [35, 40, 1]
        assert found["keypoints"][6:9] == [0, 0, 0]
        assert found["num_keypoints"] == 4

    def test_mirroring_swaps_left_and_right(self):
        mirrored = toy_labels.keypoint_points((DIAMOND * [-1, 1] + [64, 0])[::-1])
        back = mirrored * [-1, 1] + [64, 0]
        names = list(toy_labels.KEYPOINT_NAMES)
        swap = dict(toy_labels.KEYPOINT_FLIP_MAP) | {b: a for a, b in toy_labels.KEYPOINT_FLIP_MAP}
        order = [names.index(swap.get(name, name)) for name in names]
        assert back[order] == pytest.approx(toy_labels.keypoint_points(DIAMOND))


def test_labels_by_hand():
    share = np.array([[0.6, 0.4], [0.5, 0.0]])
    labels = toy_labels.semantic_labels(
        3, 4, "clouds", [((1, 0, 3, 2), share), ((0, 0, 0, 0), np.zeros((0, 0)))]
    )
    clouds = 1 + list(BACKGROUNDS).index("clouds")
    expected = np.full((3, 4), clouds)
    expected[0, 1] = expected[1, 1] = 0
    assert labels.dtype == np.uint8 and labels.tolist() == expected.tolist()


class TestSet:
    def test_the_hosts_mapper_reads_keypoints_and_labels(self, datasets):
        records = DatasetCatalog.get("toy_val_panoptic")
        assert len(records) == 12
        for record in records:
            labels = detection_utils.read_image(record["sem_seg_file_name"], "L")[:, :, 0]
            assert labels.shape == (record["height"], record["width"])
            assert len(set(labels.ravel()) - {0}) == 1  # one kind of background
            assert all(len(a["keypoints"]) == 15 for a in record["annotations"])
        flip = detection_utils.create_keypoint_hflip_indices(["toy_train"])
        assert list(flip) == [0, 3, 2, 1, 4]
        metadata = MetadataCatalog.get("toy_val_panoptic")
        assert len(metadata.thing_classes) == 8 and len(metadata.stuff_classes) == 6
        assert {"sem_seg_file_name", "file_name"} <= DatasetCatalog.get("toy_train_stuff")[0].keys()

    def test_things_are_where_the_masks_are(self, datasets):
        """Two ways to the same pixels: pycocotools fills the polygons, the painter counted coverage."""
        coco = COCO(str(datasets / "toy" / "val.json"))
        agree = total = 0
        for image in coco.loadImgs(coco.getImgIds()):
            label_file = datasets / "toy" / "sem_seg_val" / image["file_name"].replace("jpg", "png")
            things = np.asarray(Image.open(label_file)) == 0
            masks = np.zeros_like(things)
            for annotation in coco.loadAnns(coco.getAnnIds(image["id"])):
                masks |= coco.annToMask(annotation).astype(bool)
            agree += (things & masks).sum()
            total += masks.sum()
        assert agree / total > 0.97

    def test_visible_keypoints_lie_in_the_box(self, datasets):
        document = json.loads((datasets / "toy" / "train.json").read_text())
        assert document["categories"][0]["keypoints"] == list(toy_labels.KEYPOINT_NAMES)
        counts = []
        for annotation in document["annotations"]:
            x, y, v = np.array(annotation["keypoints"]).reshape(-1, 3).T
            assert annotation["num_keypoints"] == (v > 0).sum()
            if annotation["iscrowd"]:
                assert not v.any()
                continue
            left, top, width, height = annotation["bbox"]
            seen = v == 2
            inside = (x >= left - 2) & (x <= left + width + 1) & (y >= top - 2) & (y <= top + height + 1)
            counts.append([(seen & inside).sum(), seen.sum()])
        inside, seen = np.sum(counts, axis=0)
        assert seen / len(counts) > 3.5
        assert inside / seen > 0.98  # the rest lie on splinters, which are too small for the annotated mask
