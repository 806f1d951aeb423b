"""The mapper against the host's, RAW images, large-scale jitter, and records that cannot be used."""

import copy
import pickle

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog, detection_utils
from detectron2.structures import BoxMode
from PIL import Image

from rethink_pretrain.config.defaults import add_rethink_config
from rethink_pretrain.data import RethinkDatasetMapper, build_augmentations
from rethink_pretrain.errors import UserError

KEYPOINT_SET = "mapper_keypoints"
HEIGHT, WIDTH = 40, 60


@pytest.fixture
def cfg() -> CfgNode:
    if KEYPOINT_SET not in DatasetCatalog.list():
        DatasetCatalog.register(KEYPOINT_SET, list)
        MetadataCatalog.get(KEYPOINT_SET).set(keypoint_names=["left", "right"])
        MetadataCatalog.get(KEYPOINT_SET).set(keypoint_flip_map=[("left", "right")])
    ret = get_cfg()
    add_rethink_config(ret)
    ret.DATASETS.TRAIN = (KEYPOINT_SET,)
    ret.MODEL.MASK_ON = ret.MODEL.KEYPOINT_ON = True
    ret.INPUT.MIN_SIZE_TRAIN = (30, 50)
    ret.RETHINK.LSJ_SIZE = 48
    ret.RETHINK.SPEED.FAST_IMAGES = False  # the host's bits; see test_fast_images.py
    return ret


def make_record(folder, image: np.ndarray | None = None, rle: bool = False) -> dict:
    """A rectangle and a triangle, with masks, keypoints and semantic labels (1 inside, 0 outside)."""
    rng = np.random.default_rng(0)
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    labels[10:30, 20:50] = 1
    Image.fromarray(labels).save(folder / "labels.png")
    if image is None:
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(folder / "image.png")
        name = "image.png"
    else:
        name = "image.npy"
        np.save(folder / name, image)
    rectangle = mask_util.encode(np.asfortranarray(labels)) if rle else [[20, 10, 50, 10, 50, 30, 20, 30]]
    triangle_mask = np.asfortranarray(np.tri(HEIGHT, WIDTH, dtype=np.uint8))
    triangle = mask_util.encode(triangle_mask) if rle else [[0, 0, 0, 40, 40, 40]]
    shared = {"bbox_mode": BoxMode.XYXY_ABS, "iscrowd": 0}
    return {
        "file_name": str(folder / name),
        "sem_seg_file_name": str(folder / "labels.png"),
        "height": HEIGHT,
        "width": WIDTH,
        "image_id": 1,
        "annotations": [
            {
                **shared,
                "bbox": [20, 10, 50, 30],
                "category_id": 0,
                "segmentation": rectangle,
                "keypoints": [21, 11, 2, 49, 29, 2],
            },
            {
                **shared,
                "bbox": [0, 0, 40, 40],
                "category_id": 1,
                "segmentation": triangle,
                "keypoints": [1, 1, 2, 1, 39, 1],
            },
        ],
    }


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key in ("image", "sem_seg"):
        if key in one:
            assert one[key].dtype == other[key].dtype
            torch.testing.assert_close(one[key], other[key], rtol=0, atol=0)
    if "proposals" in one:
        assert torch.equal(one["proposals"].proposal_boxes.tensor, other["proposals"].proposal_boxes.tensor)
        assert torch.equal(one["proposals"].objectness_logits, other["proposals"].objectness_logits)
    if "instances" not in one:
        return
    one, other = one["instances"], other["instances"]
    assert one.image_size == other.image_size
    assert one.get_fields().keys() == other.get_fields().keys()
    assert torch.equal(one.gt_boxes.tensor, other.gt_boxes.tensor)
    assert torch.equal(one.gt_classes, other.gt_classes)
    if one.has("gt_keypoints"):
        assert torch.equal(one.gt_keypoints.tensor, other.gt_keypoints.tensor)
    if one.has("gt_masks") and hasattr(one.gt_masks, "polygons"):
        for left, right in zip(one.gt_masks.polygons, other.gt_masks.polygons, strict=True):
            np.testing.assert_array_equal(np.concatenate(left), np.concatenate(right))
    elif one.has("gt_masks"):
        assert torch.equal(one.gt_masks.tensor, other.gt_masks.tensor)


def call_seeded(mapper, record: dict, seed: int) -> dict:
    np.random.seed(seed)
    return mapper(record)


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("crop", [True, False])
@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
@pytest.mark.parametrize("keypoints", [True, False])  # without them objects are transformed all at once
def test_equals_the_host_under_the_same_seed(cfg, tmp_path, is_train, crop, mask_format, keypoints):
    cfg.INPUT.MASK_FORMAT, cfg.MODEL.KEYPOINT_ON = mask_format, keypoints
    cfg.INPUT.CROP.ENABLED = crop
    record = make_record(tmp_path)
    own, host = RethinkDatasetMapper(cfg, is_train), DatasetMapper(cfg, is_train)
    for seed in range(6):
        before = copy.deepcopy(record)
        assert_same(call_seeded(own, record, seed), call_seeded(host, record, seed))
        assert record == before


@pytest.mark.parametrize("is_train", [True, False])
@pytest.mark.parametrize("image_format", ["RGB", "BGR", "L", "YUV-BT.601"])
def test_equals_the_host_in_every_format_also_with_proposals(cfg, tmp_path, is_train, image_format):
    cfg.INPUT.FORMAT, cfg.MODEL.LOAD_PROPOSALS = image_format, True
    record = make_record(tmp_path)
    record["proposal_boxes"] = np.array([[1.0, 2, 30, 20], [5, 5, 5, 5], [10, 0, 59, 39]])
    record["proposal_objectness_logits"] = np.array([3.0, 2, 1])
    record["proposal_bbox_mode"] = BoxMode.XYXY_ABS
    own, host = RethinkDatasetMapper(cfg, is_train), DatasetMapper(cfg, is_train)
    for seed in range(3):
        assert_same(call_seeded(own, record, seed), call_seeded(host, record, seed))


@pytest.mark.parametrize("is_train", [True, False])
def test_equals_the_host_for_sets_that_tell_no_sizes(cfg, tmp_path, is_train):
    record = make_record(tmp_path)
    for key in ("height", "width", "sem_seg_file_name", *(["annotations"] if is_train else [])):
        del record[key]
    own, host = RethinkDatasetMapper(cfg, is_train), DatasetMapper(cfg, is_train)
    result = call_seeded(own, record, 0)
    assert_same(result, call_seeded(host, record, 0))
    assert (result["height"], result["width"]) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("is_train", [True, False])
def test_raw_path_equals_the_host_on_8_bit_rgb(cfg, tmp_path, is_train):
    """RAW values of 8 bits are those that the host reads as RGB."""
    record = make_record(tmp_path)
    cfg.INPUT.FORMAT = "RGB"
    host = DatasetMapper(cfg, is_train)
    cfg.INPUT.FORMAT = "RAW"
    own = RethinkDatasetMapper(cfg, is_train)
    for seed in range(6):
        before = copy.deepcopy(record)
        assert_same(call_seeded(own, record, seed), call_seeded(host, record, seed))
        assert record == before


def test_raw_image_of_five_channels_moves_like_its_labels(cfg, tmp_path):
    image = np.zeros((HEIGHT, WIDTH, 5), np.uint16)
    image[10:30, 20:50] = [1000, 2000, 3000, 4000, 50000]
    cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN = "RAW", [0.0] * 5
    mapper = RethinkDatasetMapper(cfg, True)
    for seed in range(6):
        result = call_seeded(mapper, make_record(tmp_path, image), seed)
        pixels, labels = result["image"], result["sem_seg"]
        assert pixels.shape == (5, *labels.shape)
        assert pixels.dtype == torch.float32
        # Interpolation rounds the border only; the ratios of the channels hold everywhere.
        assert ((pixels[4] > 25000) == (labels == 1)).float().mean() > 0.95
        torch.testing.assert_close(pixels[4], 50 * pixels[0])


def test_number_of_channels_is_that_of_pixel_mean(cfg, tmp_path):
    cfg.INPUT.FORMAT = "RAW"
    record = make_record(tmp_path, np.zeros((HEIGHT, WIDTH, 5), np.uint16))
    with pytest.raises(UserError, match=r"image\.npy: 5 channels found, 3 expected"):
        RethinkDatasetMapper(cfg, True)(record)


def test_lsj_scales_in_its_range_and_fills_the_square(cfg, tmp_path):
    cfg.RETHINK.AUGMENTATION = "lsj"
    cfg.INPUT.RANDOM_FLIP = "none"
    mapper = RethinkDatasetMapper(cfg, True)
    record = make_record(tmp_path)
    scales = []
    for seed in range(40):
        result = call_seeded(mapper, record, seed)
        assert result["image"].shape == (3, 48, 48)
        ignored = result["sem_seg"] == 255
        scales.append((~ignored).any(0).sum().item() / 48)
        assert (result["image"][:, ignored] == 128).all()
    assert min(scales) < 0.3
    assert max(scales) == 1.0


@pytest.mark.parametrize("rle", [True, False])
@pytest.mark.parametrize("mask_format", ["polygon", "bitmask"])
def test_lsj_boxes_are_tight_around_cropped_masks(cfg, tmp_path, rle, mask_format):
    """Also RLE masks: no padding is object, where v0.6 and main pad labels with 0 and 255."""
    if rle and mask_format == "polygon":
        pytest.skip("the host takes RLE as bitmask only")
    cfg.RETHINK.AUGMENTATION = "lsj"
    cfg.INPUT.MASK_FORMAT = mask_format
    mapper = RethinkDatasetMapper(cfg, True)
    record = make_record(tmp_path, rle=rle)
    for seed in range(20):
        result = call_seeded(mapper, record, seed)
        instances = result["instances"]
        boxes = instances.gt_boxes.tensor
        torch.testing.assert_close(boxes, instances.gt_masks.get_bounding_boxes().tensor)
        assert instances.gt_boxes.nonempty().all()
        assert (boxes >= 0).all()
        assert (boxes <= 48).all()
        if mask_format == "bitmask":
            assert not instances.gt_masks.tensor[:, result["sem_seg"] == 255].any()
        rectangle = instances.gt_classes == 0
        if rectangle.any() and mask_format == "bitmask":
            labels = result["sem_seg"] == 1  # an independent path: the label image
            mask = instances.gt_masks.tensor[rectangle][0].bool()
            assert (mask != labels).sum() <= 2 * sum(labels.shape)


def test_lsj_drops_objects_outside_the_crop(cfg, tmp_path):
    cfg.RETHINK.AUGMENTATION = "lsj"
    cfg.RETHINK.LSJ_SCALE = (4.0, 4.0)
    record = make_record(tmp_path)
    mapper = RethinkDatasetMapper(cfg, True)
    counts = {len(call_seeded(mapper, record, seed)["instances"]) for seed in range(40)}
    assert counts - {2}  # some crops lose an object, and none gives an empty box


@pytest.mark.parametrize("iscrowd", [None, 1])
def test_lsj_of_an_image_without_objects(cfg, tmp_path, iscrowd):
    cfg.RETHINK.AUGMENTATION = "lsj"
    record = make_record(tmp_path)
    record["annotations"] = [{**each, "iscrowd": 1} for each in record["annotations"] if iscrowd]
    for seed in range(5):
        assert len(call_seeded(RethinkDatasetMapper(cfg, True), record, seed)["instances"]) == 0


def test_lsj_of_objects_without_masks_is_told(cfg, tmp_path):
    cfg.RETHINK.AUGMENTATION = "lsj"
    record = make_record(tmp_path)
    for each in record["annotations"]:
        del each["segmentation"]
    assert "image id 1: " in (told := refused(cfg, record)) and "its objects have no masks" in told


def test_lsj_pads_raw_images_with_the_mean(cfg, tmp_path):
    cfg.RETHINK.AUGMENTATION, cfg.RETHINK.LSJ_SCALE = "lsj", (0.5, 0.5)
    cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN = "RAW", [1000.0, 3000.0]
    record = make_record(tmp_path, np.zeros((HEIGHT, WIDTH, 2), np.uint16))
    result = call_seeded(RethinkDatasetMapper(cfg, True), record, 0)
    assert (result["image"][:, result["sem_seg"] == 255] == 2000).all()


def test_testing_is_the_hosts_with_lsj(cfg, tmp_path):
    record = make_record(tmp_path)
    host = DatasetMapper(cfg, False)
    cfg.RETHINK.AUGMENTATION = "lsj"
    assert_same(RethinkDatasetMapper(cfg, False)(record), host(record))


@pytest.mark.parametrize("flip", ["none", "horizontal", "vertical"])
def test_augmentations_are_a_visible_list(cfg, flip):
    cfg.INPUT.RANDOM_FLIP = flip
    names = {
        name: [type(augmentation).__name__.lstrip("_") for augmentation in build_augmentations(cfg, True)]
        for name in ("resize", "lsj")
        if not setattr(cfg.RETHINK, "AUGMENTATION", name)
    }
    flips = ["RandomFlip"] * (flip != "none")
    assert names["resize"] == ["ResizeShortestEdge", *flips]
    assert names["lsj"] == ["ResizeScale", "FixedSizeCrop", *flips]


@pytest.mark.parametrize("augmentation", ["resize", "lsj"])
def test_goes_to_worker_processes(cfg, tmp_path, augmentation):
    cfg.RETHINK.AUGMENTATION = augmentation
    mapper = RethinkDatasetMapper(cfg, True)
    record = make_record(tmp_path)
    assert_same(call_seeded(pickle.loads(pickle.dumps(mapper)), record, 3), call_seeded(mapper, record, 3))


def refused(cfg, record: dict, is_train: bool = True) -> str:
    """The one line in which `record` is refused; it stays as it is."""
    before = copy.deepcopy(record)
    with pytest.raises(UserError) as error:
        call_seeded(RethinkDatasetMapper(cfg, is_train), record, 0)
    assert record == before
    assert str(error.value).isprintable()
    return str(error.value)


@pytest.mark.parametrize("is_train", [True, False])
def test_an_image_of_another_size_than_its_record(cfg, tmp_path, is_train):
    record = {**make_record(tmp_path), "width": WIDTH + 1}
    message = refused(cfg, record, is_train)
    assert "image.png has 60 x 40 pixels" in message and "61 x 40" in message


def test_an_image_above_the_limit_of_the_config(cfg, tmp_path):
    cfg.RETHINK.MAX_IMAGE_PIXELS = HEIGHT * WIDTH
    record = make_record(tmp_path)
    assert RethinkDatasetMapper(cfg, True)(record)["image"].numel()
    cfg.RETHINK.MAX_IMAGE_PIXELS -= 1
    assert "MAX_IMAGE_PIXELS 2399" in refused(cfg, record)


def test_labels_are_read_with_the_same_care(cfg, tmp_path):
    record = make_record(tmp_path)
    path = tmp_path / "labels.png"
    Image.fromarray(np.full((HEIGHT, WIDTH), 300, np.uint16)).save(path)
    assert "more than 8 bits" in refused(cfg, record)  # the host makes 255 of them: ignored
    Image.new("L", (WIDTH, HEIGHT - 1)).save(path)
    assert f"{path} is not of the size of its image" in refused(cfg, record)
    path.write_bytes(path.read_bytes()[:50])
    assert f"Cannot read {path}" in refused(cfg, record)


@pytest.mark.parametrize("raw", [False, True])
def test_an_image_too_thin_to_be_resized(cfg, tmp_path, raw):
    Image.new("L" if raw else "RGB", (5000, 1)).save(tmp_path / "thin.png")
    cfg.INPUT.MAX_SIZE_TRAIN = 64
    record = {"file_name": str(tmp_path / "thin.png"), "image_id": 3}
    if raw:
        np.save(tmp_path / "thin.npy", np.zeros((1, 5000, 5), np.uint16))
        cfg.INPUT.FORMAT, cfg.MODEL.PIXEL_MEAN = "RAW", [0.0] * 5
        record["file_name"] = str(tmp_path / "thin.npy")
    assert "image id 3: its image cannot be transformed" in refused(cfg, record)


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": [1, 2, 3]},
        {"bbox": "none"},
        {"bbox_mode": 77},
        {"segmentation": [[1, 2, 3]]},
        {"segmentation": 7},
        {"segmentation": {"size": [HEIGHT + 3, WIDTH], "counts": b"PPYo1"}},
        {"keypoints": [1, 2]},
        {"keypoints": [1, 2, 2] * 9},
        {"category_id": "cat"},
    ],
)
def test_objects_that_cannot_be_used_are_told_with_their_image(cfg, tmp_path, change):
    record = make_record(tmp_path)
    record["annotations"][0].update(change)
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    messages = set()
    for seed in range(4):  # flipped or not
        try:
            call_seeded(RethinkDatasetMapper(cfg, True), record, seed)
        except UserError as error:
            messages.add(str(error))
    assert messages
    for message in messages:
        assert message.isprintable() and f"{tmp_path / 'image.png'}, image id 1: its objects" in message
    cfg.DATASETS.TEST = ()
    assert RethinkDatasetMapper(cfg, False)(record)["image"].numel()  # testing does not look at them


@pytest.mark.parametrize("error", [AttributeError, NameError, ZeroDivisionError])
def test_a_mistake_of_ours_keeps_its_traceback(cfg, tmp_path, monkeypatch, error):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(detection_utils, "annotations_to_instances", fail)
    with pytest.raises(error):
        RethinkDatasetMapper(cfg, True)(make_record(tmp_path))
