"""The host's checkpointer that says what a weight file filled, and fits it to other numbers of channels."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.utils.file_io import PathManager
from torch import nn

from ..errors import UserError
from ..files import write_atomically, write_text
from .fit import Shapes, coverage, inflate_first_conv

_UNREADABLE = (pickle.UnpicklingError, EOFError, KeyError, RuntimeError, UnicodeDecodeError)
_NUM_FIRST = 5


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
