"""The host's polygons of an image, picked from without copies."""

import numpy as np
import torch
from detectron2.structures import Instances, PolygonMasks


class SharedPolygonMasks(PolygonMasks):
    """The host's; what is picked from them are the lists of polygons themselves.

    RoI heads pick an object for each of an image's 512 proposals, and of these the positive ones. The host
    copies each polygon both times, longer than it takes to compute the targets.
    """

    def __getitem__(self, item: int | slice | list[int] | torch.Tensor) -> "SharedPolygonMasks":
        """Of the instances that `item` names, by their number or as a bool tensor (N,)."""
        if isinstance(item, torch.Tensor):
            if item.dtype not in (torch.bool, torch.int32, torch.int64):
                raise ValueError(f"Masks are picked by bool or int, not by {item.dtype}.")
            item = (item.nonzero().squeeze(1) if item.dtype == torch.bool else item).tolist()
        if isinstance(item, slice):
            return _shared(self.polygons[item])
        return _shared([self.polygons[index] for index in ([item] if isinstance(item, int) else item)])


def share_polygons(instances: Instances) -> None:
    """Let `gt_masks` of `instances` share their polygons, where they are the host's."""
    if instances.has("gt_masks") and type(instances.gt_masks) is PolygonMasks:
        instances.gt_masks = _shared(instances.gt_masks.polygons)


def _shared(polygons: list[list[np.ndarray]]) -> SharedPolygonMasks:
    ret = SharedPolygonMasks([])  # the polygons are what the host's constructor makes of them
    ret.polygons = polygons
    return ret
