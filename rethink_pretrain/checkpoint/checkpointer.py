"""The host's checkpointer that says what a weight file filled, and fits it to other numbers of channels."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.utils import comm
from torch import nn

from ..errors import UserError
from ..files import sha256_of
from . import store
from .background import Background, snapshot
from .fit import Shapes, coverage, inflate_first_conv
from .reading import pretraining_in, read_weights
from .remote import local_path

_NUM_FIRST = 5
_OTHER_FOLDER = "Choose another OUTPUT_DIR, or go on with the config that the run was started with."


class RethinkCheckpointer(DetectionCheckpointer):
    """The host's checkpointer. Afterwards these say what `load` did; without a file they are None, None, {}.

    coverage: share, 0 to 1, of the parameters in the part of the model that the file is for which it
        filled. A file that fills nothing besides the backbone is for the backbone without FPN; any other
        is for the whole model, but for predictors of another number of classes.
    missing: names of the parameters and buffers that it did not fill, also because their shape differs.
    failure: why the last `save` could not be written, "" where it could.
    resumed: whether `resume_or_load` found a checkpoint.
    loaded: for run.json: "file", "sha256", "inflated", "coverage", how many names "matched", are "missing"
        and "unexpected", the first few as "first_missing" and "first_unexpected", and "pretraining" where
        the file tells it.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        keep: int = 0,
        trust_pickle: bool = False,
        on_failure: Callable[[str, str], Any] | None = None,
        **checkpointables: Any,
    ):
        """`keep`: periodic checkpoints that stay, 0 for all. `trust_pickle`: see `read_weights`.

        `on_failure` is told the name and the reason when a checkpoint could not be written.
        """
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self._keep, self._trust_pickle, self._on_failure = keep, trust_pickle, on_failure
        self._background = Background()
        self.failure = ""
        self.resumed = False
        self.coverage: float | None = None
        self.missing: frozenset[str] | None = None
        self.loaded: dict[str, Any] = {}

    def save(self, name: str, *, tag: bool = True, **kwargs: Any) -> None:
        """Write `name`.pth in the background, whole or not at all; with `tag`, a resume then starts there.

        Returns as soon as the state is copied; `wait` for the file. Where it cannot be written, `failure` and
        the log say why, and the files before it stay as they are.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: value.state_dict() for key, value in self.checkpointables.items()}
        self.wait()  # or there would be two copies in memory
        data = snapshot({"model": self.model.state_dict(), **states, **kwargs})
        path = Path(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        self._background.start(lambda: self._write(path, data, tag))

    def wait(self) -> None:
        """Until the last `save` has come to its end."""
        self._background.wait()

    def _write(self, path: Path, data: dict[str, Any], tag: bool) -> None:
        try:
            store.write_checkpoint(path, data, tag=tag, keep=self._keep)
            self.failure = ""
        except (OSError, RuntimeError) as error:  # torch's writer makes a RuntimeError of an OSError
            cause = error if isinstance(error, OSError) else error.__context__
            if not isinstance(cause, OSError):
                raise
            self.failure = f"{cause.strerror or cause}{_space(path.parent)}"
            words = "%s could not be written: %s. The checkpoints before it stay, and training goes on."
            self.logger.error(words, path, self.failure)
            if self._on_failure:
                self._on_failure(path.name, self.failure)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Let the next resume start from this file of the folder."""
        store.tag_last(Path(self.save_dir, last_filename_basename))

    def has_checkpoint(self) -> bool:
        """Whether the folder holds a checkpoint, be it a broken one."""
        return bool(self.save_dir) and store.has_any(Path(self.save_dir))

    def get_checkpoint_file(self) -> str:
        """The checkpoint to resume from: the last one, or where that is broken the newest whole one.

        What is broken is logged. "" where there is none; `UserError` where all are broken.
        """
        if not self.save_dir:
            return ""
        folder = Path(self.save_dir)
        path, faults = store.find_good(folder)
        for name, fault in faults.items():
            self.logger.error("%s is broken and passed over: %s.", folder / name, fault)
        if path is None and faults:
            name, fault = next(iter(faults.items()))
            raise UserError(
                f"None of {len(faults)} checkpoints in {folder} is whole; the last, {name}: {fault}. Start "
                "again in another folder (OUTPUT_DIR), or bring back a copy."
            )
        return str(path) if path else ""

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """As in the host, but from the newest whole checkpoint; `resumed` tells whether there was one.

        Raises `UserError` where that is of another model.
        """
        found = self._agree_on_checkpoint() if resume else ""
        self.resumed = bool(found)
        if not found:
            return self.load(path, checkpointables=[])
        try:
            return self.load(found)
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            # The optimizer's words about groups that do not match.
            raise UserError(f"{found} cannot be resumed: {error}. {_OTHER_FOLDER}") from None

    def _agree_on_checkpoint(self) -> str:
        """The main process looks, so that all go on from one file."""
        found, error = "", None
        if comm.is_main_process():
            try:
                found = self.get_checkpoint_file()
            except UserError as one:
                error = str(one)
        found, error = comm.all_gather((found, error))[0]
        if error:
            raise UserError(error)
        return found

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As in the host; `UserError` for a file that is not there or no checkpoint."""
        self.coverage, self.missing, self.loaded = None, None, {}
        try:
            ret = super().load(local_path(path), *args, **kwargs)
        except (OSError, AssertionError) as error:  # the host asserts that a file is there
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"Cannot load the weights {path!r} (MODEL.WEIGHTS): {reason}") from None
        finally:
            self._parsed_url_during_load = None  # main's, whose next load stumbles over it
        if self.loaded:
            self.loaded["file"] = str(path)  # as given, not where it was downloaded to
        return ret

    def _load_file(self, filename: str) -> dict[str, Any]:
        checkpoint = read_weights(filename, self._trust_pickle)
        self.loaded = {"file": filename, "sha256": sha256_of(filename)}
        if told := pretraining_in(checkpoint):
            self.loaded["pretraining"] = told
        return checkpoint

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        state = checkpoint["model"]
        self._convert_ndarray_to_tensor(state)
        self.loaded["inflated"] = not self.resumed and inflate_first_conv(self.model, state)
        if checkpoint.pop("matching_heuristics", False):
            # The host's own step, taken here because its result is not to be had afterwards.
            is_caffe2 = checkpoint.get("__author__") == "Caffe2"
            state = align_and_update_state_dicts(self.model.state_dict(), state, c2_conversion=is_caffe2)
            checkpoint["model"] = state
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        incompatible = super()._load_model(checkpoint)
        wrong = {name for name, *_ in incompatible.incorrect_shapes}
        self._describe(wrong | set(incompatible.missing_keys), list(incompatible.unexpected_keys), shapes)
        if self.resumed:
            self._refuse_another_model([*self.missing, *incompatible.unexpected_keys])
        return incompatible

    def _refuse_another_model(self, different: list[str]) -> None:
        """A resume that fills a part of the model would go on with the rest at random."""
        if different:
            raise UserError(
                f"The checkpoint {self.loaded['file']} is of another model: {len(different)} parameters have "
                f"another name or shape, such as {min(different)}. {_OTHER_FOLDER}"
            )

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


def _space(folder: Path) -> str:
    try:
        return f" ({shutil.disk_usage(folder).free / 1e6:.0f} MB free in {folder})"
    except OSError:
        return ""
