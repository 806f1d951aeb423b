"""From a record to the model's input: the host's mapper with our reading and large-scale jitter."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T
from detectron2.structures import Instances

from ..errors import UserError, one_line
from .annotations import transform_annotations
from .classification import ClassificationMapper
from .datasets.image_folders import CLASSIFIER
from .fast_images import FastAugInput
from .images import MAX_PIXELS, RAW, read_image
from .polygons import share_polygons

_IGNORED = 255  # the host's label of a pixel that no semantic loss sees
_HOST_PAD_VALUE = 128.0  # T.FixedSizeCrop's
_IMAGE_ERRORS = (ValueError, RuntimeError)  # of PIL and torch, where an image is too thin to be resized
# Of the host and pycocotools.
_ANNOTATION_ERRORS = (ValueError, TypeError, KeyError, IndexError, AssertionError, NotImplementedError)


class _FixedSizeCrop(T.FixedSizeCrop):
    """The host's, with the same padding of semantic labels in v0.6 (which has class 0) as in main."""

    def _get_pad(self, image: np.ndarray) -> T.Transform:
        pad = super()._get_pad(image)
        pad.seg_pad_value = _IGNORED
        return pad


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[T.Augmentation]:
    """What RETHINK.AUGMENTATION names in training; the host's resizing in testing."""
    host = detection_utils.build_augmentation(cfg, is_train)
    lsj = is_train and cfg.RETHINK.AUGMENTATION == "lsj"
    return [*_large_scale_jitter(cfg), *host[1:]] if lsj else host


def _large_scale_jitter(cfg: CfgNode) -> list[T.Augmentation]:
    size = cfg.RETHINK.LSJ_SIZE
    # 128 is grey only in 8 bits; the mean is what the model's own padding amounts to.
    pad_value = float(np.mean(cfg.MODEL.PIXEL_MEAN)) if cfg.INPUT.FORMAT == RAW else _HOST_PAD_VALUE
    return [
        T.ResizeScale(*cfg.RETHINK.LSJ_SCALE, size, size),
        _FixedSizeCrop((size, size), pad_value=pad_value),
    ]


def build_mapper(cfg: CfgNode, is_train: bool) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The mapper of the model that `cfg` describes: of a detector, or of a classifier."""
    if cfg.MODEL.META_ARCHITECTURE == CLASSIFIER:
        return ClassificationMapper.from_config(cfg, is_train)
    return RethinkDatasetMapper(cfg, is_train=is_train)


class RethinkDatasetMapper(DatasetMapper):
    """The host's mapper, whose images come from `read_image`: also "RAW" ones, and none that does harm.

    A record that cannot be used is a `UserError` of one line.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        num_channels: int | None = None,
        max_pixels: int = MAX_PIXELS,
        fast_images: bool = False,
        share_polygons: bool = False,
        **kwargs: Any,
    ):
        """`num_channels`: of a RAW image, None for any; `max_pixels`: of any; the rest as in the host.

        `fast_images`: not by PIL but where it has to, and within 1 grey level of it; RAW stays as it is.
        `share_polygons`: RoIs of one object are to share its polygons.
        """
        super().__init__(is_train, **kwargs)
        self.num_channels = num_channels if self.image_format == RAW else None
        self.max_pixels = max_pixels
        self.fast_images = fast_images and self.image_format != RAW
        self.share_polygons = share_polygons

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """As in the host; the model takes one channel per value of MODEL.PIXEL_MEAN (the host's rule)."""
        ret = super().from_config(cfg, is_train)
        augmentations = build_augmentations(cfg, is_train)
        if is_train and cfg.RETHINK.AUGMENTATION == "lsj":
            ret["augmentations"] = augmentations
            ret["recompute_boxes"] = cfg.MODEL.MASK_ON  # it crops objects
        ret["num_channels"] = len(cfg.MODEL.PIXEL_MEAN)
        ret["max_pixels"] = cfg.RETHINK.MAX_IMAGE_PIXELS
        ret["fast_images"] = cfg.RETHINK.SPEED.FAST_IMAGES
        ret["share_polygons"] = cfg.RETHINK.SPEED.MASK_TARGETS
        return ret

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """The model's input of one record, which is left as it is. "image": C x H x W, uint8 or float32.

        The host's __call__ has no seam at its reading, so its steps are called here one by one.
        """
        record = dict(dataset_dict)
        image = read_image(
            record["file_name"], self.image_format, self.num_channels, self.max_pixels, self.fast_images
        )
        _check_image_size(record, image)
        labels = self._read_labels(record, image)
        inputs = (FastAugInput if self.fast_images else T.AugInput)(image, sem_seg=labels)
        with _told_of(record, "its image cannot be transformed", _IMAGE_ERRORS):
            transforms = self.augmentations(inputs)
        size = inputs.image.shape[:2]
        record["image"] = self._as_tensor(inputs.image)
        if labels is not None:
            record["sem_seg"] = torch.from_numpy(inputs.sem_seg.astype(np.int64))
        with _told_of(record, "its objects cannot be used", _ANNOTATION_ERRORS):
            self._map_objects(record, transforms, size)
        return record

    def _as_tensor(self, image: np.ndarray) -> torch.Tensor:
        """C x H x W. In training channels may stay last in memory: collecting a batch copies it anyway."""
        if self.fast_images and self.is_train:
            return torch.from_numpy(np.require(image, requirements="CW")).permute(2, 0, 1)
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))

    def _read_labels(self, record: dict[str, Any], image: np.ndarray) -> np.ndarray | None:
        """Semantic labels, H x W, of the same size as `image`."""
        if "sem_seg_file_name" not in record:
            return None
        path = record.pop("sem_seg_file_name")
        labels = read_image(path, "L", max_pixels=self.max_pixels)[:, :, 0]
        if labels.shape != image.shape[:2]:
            raise UserError(one_line(f"{path} is not of the size of its image {record['file_name']}."))
        return labels

    def _map_objects(
        self, record: dict[str, Any], transforms: T.TransformList, size: tuple[int, int]
    ) -> None:
        if self.proposal_topk is not None:
            detection_utils.transform_proposals(record, size, transforms, proposal_topk=self.proposal_topk)
        if not self.is_train:
            record.pop("annotations", None)
        elif "annotations" in record:
            self._transform_annotations(record, transforms, size)
            if self.share_polygons:
                share_polygons(record["instances"])

    def _transform_annotations(self, dataset_dict: dict, transforms: Any, image_shape: tuple) -> None:
        # Masks given as RLE are padded by the value for semantic labels: 255 would be object.
        for transform in transforms.transforms:
            if isinstance(transform, T.PadTransform):
                transform.seg_pad_value = 0
        annotations = dataset_dict["annotations"]
        objects = [each for each in annotations if each.get("iscrowd", 0) == 0]
        if self.recompute_boxes and objects and "segmentation" not in objects[0]:  # as the host looks at it
            raise ValueError("its objects have no masks, from which crops would get their boxes")
        if not (self.use_keypoint and any("keypoints" in each for each in objects)):
            objects = transform_annotations(objects, transforms, image_shape, self.use_instance_mask)
            if objects is not None:
                del dataset_dict["annotations"]
                dataset_dict["instances"] = self._as_instances(objects, image_shape)
                return
        dataset_dict["annotations"] = copy.deepcopy(annotations)  # the host changes them
        super()._transform_annotations(dataset_dict, transforms, image_shape)

    def _as_instances(self, objects: list[dict[str, Any]], image_shape: tuple[int, int]) -> Instances:
        """As in the host, of annotations that are transformed."""
        ret = detection_utils.annotations_to_instances(objects, image_shape, self.instance_mask_format)
        if self.recompute_boxes and objects:  # without any, the host sets no masks either
            ret.gt_boxes = ret.gt_masks.get_bounding_boxes()
        return detection_utils.filter_empty_instances(ret)


def _check_image_size(record: dict[str, Any], image: np.ndarray) -> None:
    """The host's check; it also tells `record` the size where that does not know it."""
    try:
        detection_utils.check_image_size(record, image)
    except detection_utils.SizeMismatchError:
        height, width = image.shape[:2]
        raise UserError(
            one_line(
                f"{record['file_name']} has {width} x {height} pixels, where its annotations tell "
                f"{record['width']} x {record['height']}. Correct them (tools/validate_dataset.py --fix)."
            )
        ) from None


@contextlib.contextmanager
def _told_of(record: dict[str, Any], what: str, kinds: tuple[type[Exception], ...]) -> Iterator[None]:
    """Errors of other people's code, which knows the numbers but not whose they are, become `UserError`."""
    try:
        yield
    except kinds as error:
        name = f"{record['file_name']}, image id {record.get('image_id')}"
        raise UserError(
            one_line(
                f"{name}: {what} ({type(error).__name__}: {error}). tools/validate_dataset.py checks the set."
            )
        ) from None
