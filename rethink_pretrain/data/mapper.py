"""From a record to the model's input: the host's mapper with RAW images and large-scale jitter."""

import copy
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data import transforms as T

from .images import RAW, read_image

_IGNORED = 255  # the host's label of a pixel that no semantic loss sees
_HOST_PAD_VALUE = 128.0  # T.FixedSizeCrop's


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


class RethinkDatasetMapper(DatasetMapper):
    """The host's mapper; with `image_format` "RAW", images of any number of channels and bit depth."""

    @configurable
    def __init__(self, is_train: bool, *, num_channels: int | None = None, **kwargs: Any):
        """`num_channels`: of a RAW image, None for any; the rest as in the host."""
        super().__init__(is_train, **kwargs)
        self.num_channels = num_channels

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """As in the host; the model takes one channel per value of MODEL.PIXEL_MEAN (the host's rule)."""
        ret = super().from_config(cfg, is_train)
        augmentations = build_augmentations(cfg, is_train)
        if is_train and cfg.RETHINK.AUGMENTATION == "lsj":
            ret["augmentations"] = augmentations
            ret["recompute_boxes"] = cfg.MODEL.MASK_ON  # it crops objects
        ret["num_channels"] = len(cfg.MODEL.PIXEL_MEAN)
        return ret

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """The model's input of one record, which is left as it is. "image": C x H x W, uint8 or float32."""
        if self.image_format != RAW:
            return super().__call__(dataset_dict)
        return self._map_raw(copy.deepcopy(dataset_dict))

    def _map_raw(self, record: dict[str, Any]) -> dict[str, Any]:
        """The host's __call__ has no seam at its reading, so its steps are called here one by one."""
        image = read_image(record["file_name"], RAW, self.num_channels)
        detection_utils.check_image_size(record, image)
        labels = None
        if "sem_seg_file_name" in record:
            labels = detection_utils.read_image(record.pop("sem_seg_file_name"), "L")[:, :, 0]
        inputs = T.AugInput(image, sem_seg=labels)
        transforms = self.augmentations(inputs)
        size = inputs.image.shape[:2]
        record["image"] = torch.from_numpy(np.ascontiguousarray(inputs.image.transpose(2, 0, 1)))
        if labels is not None:
            record["sem_seg"] = torch.from_numpy(inputs.sem_seg.astype(np.int64))
        if self.proposal_topk is not None:
            detection_utils.transform_proposals(record, size, transforms, proposal_topk=self.proposal_topk)
        if not self.is_train:
            record.pop("annotations", None)
        elif "annotations" in record:
            self._transform_annotations(record, transforms, size)
        return record

    def _transform_annotations(self, dataset_dict: dict, transforms: Any, image_shape: tuple) -> None:
        # Masks given as RLE are padded by the value for semantic labels: 255 would be object.
        for transform in transforms.transforms:
            if isinstance(transform, T.PadTransform):
                transform.seg_pad_value = 0
        super()._transform_annotations(dataset_dict, transforms, image_shape)
