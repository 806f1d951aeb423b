"""The host's checkpointer that says what a weight file filled, and fits it to other numbers of channels."""

import hashlib
import logging
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.utils.file_io import PathManager
from torch import nn

from .errors import UserError
from .files import write_atomically, write_text

_FILE_CHANNELS = 3
_RES5_HEAD = "roi_heads.res5."  # where a C4 model keeps the last stage of its backbone (Res5ROIHeads)
# How names in the host's FPN and SimpleFeaturePyramid begin that are not of the backbone below.
FPN_MODULES = ("backbone.fpn_", "backbone.simfp_", "backbone.top_block")
_UNREADABLE = (pickle.UnpicklingError, EOFError, KeyError, RuntimeError, UnicodeDecodeError)
_NUM_FIRST = 5

Shapes = dict[str, tuple[int, ...]]


class RethinkCheckpointer(DetectionCheckpointer):
    """The host's checkpointer. Afterwards these say what `load` did; without a file they are None, None, {}.

    coverage: share, 0 to 1, of the parameters in the part of the model that the file is for which it
        filled. A file that fills nothing besides the backbone is for the backbone without FPN; any other
        is for the whole model, but for predictors of another number of classes.
    missing: names of the parameters and buffers that it did not fill, also because their shape differs.
    loaded: for run.json: "file", "sha256", "inflated", "coverage", how many names "matched", are "missing"
        and "unexpected", and the first few as "first_missing" and "first_unexpected".
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ):
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.coverage: float | None = None
        self.missing: frozenset[str] | None = None
        self.loaded: dict[str, Any] = {}

    def save(self, name: str, *, tag: bool = True, **kwargs: Any) -> None:
        """Write `name`.pth whole or not at all; with `tag`, a resume then starts there."""
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: value.state_dict() for key, value in self.checkpointables.items()}
        data = {"model": self.model.state_dict(), **states, **kwargs}
        path = Path(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        write_atomically(path, lambda file: torch.save(data, file))
        if tag:
            self.tag_last_checkpoint(path.name)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Let the next resume start from this file of the folder."""
        write_text(Path(self.save_dir, "last_checkpoint"), last_filename_basename)

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As in the host; `UserError` for a file that is no checkpoint."""
        self.coverage, self.missing, self.loaded = None, None, {}
        ret = super().load(path, *args, **kwargs)
        if self.loaded:
            self.loaded["file"] = str(path)  # as given, not where it was downloaded to
        return ret

    def _load_file(self, filename: str) -> dict[str, Any]:
        try:
            checkpoint = super()._load_file(filename)
        except _UNREADABLE as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise UserError(f"{filename} is no checkpoint, or a damaged one: {reason}") from None
        if not isinstance(checkpoint["model"], dict):
            raise UserError(
                f"{filename} holds no weights by name. Save a state_dict, or {{'model': state_dict}}."
            )
        with PathManager.open(filename, "rb") as file:
            self.loaded = {"file": filename, "sha256": _sha256(file)}
        return checkpoint

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        state = checkpoint["model"]
        self._convert_ndarray_to_tensor(state)
        self.loaded["inflated"] = inflate_first_conv(self.model, state)
        if checkpoint.pop("matching_heuristics", False):
            # The host's own step, taken here because its result is not to be had afterwards.
            is_caffe2 = checkpoint.get("__author__") == "Caffe2"
            state = align_and_update_state_dicts(self.model.state_dict(), state, c2_conversion=is_caffe2)
            checkpoint["model"] = state
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        incompatible = super()._load_model(checkpoint)
        wrong = {name for name, *_ in incompatible.incorrect_shapes}
        self._describe(wrong | set(incompatible.missing_keys), list(incompatible.unexpected_keys), shapes)
        return incompatible

    def _describe(self, missing: set[str], unexpected: list[str], shapes: Shapes) -> None:
        # Buffers that are no part of a checkpoint by the host's design are in neither list.
        names = self.model.state_dict().keys()
        self.missing = frozenset(missing & names)
        self.coverage = coverage(self.model, self.missing, shapes)
        self.loaded |= {
            "coverage": self.coverage,
            "matched": len(names) - len(self.missing),
            "missing": len(self.missing),
            "unexpected": len(unexpected),
            "first_missing": sorted(self.missing)[:_NUM_FIRST],
            "first_unexpected": sorted(unexpected)[:_NUM_FIRST],
        }


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def coverage(model: nn.Module, missing: Iterable[str], shapes: Shapes) -> float:
    """Share of the parameters that a file filled; see `RethinkCheckpointer`. `shapes`: what the file has."""
    missing = set(missing)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    filled = sizes.keys() - missing
    if all(map(_is_backbone, filled)):
        # res5 in the heads is also there to be filled; a file without it is not for a C4 model.
        scope = {name for name in sizes if _is_backbone(name)}
    else:
        parameters = dict(model.named_parameters())
        other_classes = {
            name for name in missing & sizes.keys() if _has_other_classes(name, parameters[name], shapes)
        }
        scope = sizes.keys() - other_classes
    total = sum(sizes[name] for name in scope)
    return sum(sizes[name] for name in filled & scope) / total if total else 0.0


def _is_backbone(name: str) -> bool:
    return name.startswith(("backbone.", _RES5_HEAD)) and not name.startswith(FPN_MODULES)


def _has_other_classes(name: str, parameter: torch.Tensor, shapes: Shapes) -> bool:
    """Whether the file has this parameter of a head with nothing different but the number of outputs.

    The host's name matching leaves such a tensor under a name that is the end of the model's.
    """
    if _is_backbone(name) or name.startswith(FPN_MODULES):
        return False
    found = shapes.get(name) or next((shapes[key] for key in shapes if name.endswith(f".{key}")), None)
    own = tuple(parameter.shape)
    return found is not None and found != own and found[1:] == own[1:]


def first_conv(model: nn.Module) -> tuple[str, nn.Conv2d] | None:
    """Name and module of the convolution that takes the image; None for a model that has none."""
    for prefix in ("backbone.bottom_up.", "backbone.", ""):  # the host's FPN registers its own first
        for name, module in model.named_modules():
            if isinstance(module, nn.Conv2d) and name.startswith(prefix):
                return name, module
    return None


def inflate_first_conv(model: nn.Module, state: dict[str, torch.Tensor]) -> bool:
    """Fit the first convolution in `state`, which takes 3 channels, to a model that takes N; whether it did.

    Every new channel gets the mean of the three, times 3 / N: an image whose channels are all equal gives
    the response it gave. The names in `state` need not be the model's: the tensor is known by its shape.
    Raises `UserError` where several have it.
    """
    found = first_conv(model)
    if found is None or found[1].in_channels == _FILE_CHANNELS:
        return False
    name, conv = found[0] + ".weight", found[1]
    out_channels, num_channels, *kernel = conv.weight.shape
    candidates = [
        key for key, value in state.items() if tuple(value.shape) == (out_channels, _FILE_CHANNELS, *kernel)
    ]
    if not candidates or (name in state and name not in candidates):
        return False
    if name in candidates:
        candidates = [name]
    if len(candidates) > 1:
        raise UserError(
            f"Which weight takes the image? {', '.join(candidates)} fit {name}, which takes {num_channels} "
            f"channels. Give it the name {name} in MODEL.WEIGHTS."
        )
    weight = state[candidates[0]]
    mean = weight.mean(dim=1, keepdim=True) * (_FILE_CHANNELS / num_channels)
    state[candidates[0]] = mean.repeat(1, num_channels, 1, 1)
    logging.getLogger(__name__).info(
        "%s: %d channels instead of %d, each with the mean of the three times %d/%d.",
        *(candidates[0], num_channels, _FILE_CHANNELS, _FILE_CHANNELS, num_channels),
    )
    return True
