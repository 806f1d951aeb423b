"""Weights & Biases as one more writer beside metrics.json and TensorBoard."""

import os
import secrets
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.utils.events import EventWriter, get_event_storage

from ...errors import UserError
from ...files import write_text

MODES = ("offline", "online")
_LOSS_WINDOW = 20  # iterations of the median, as in the host's writers


class WandbWriter(EventWriter):
    """Sends scalars and images of the event storage. A resumed run goes on under the same id.

    The host's TensorBoard writer clears the images, so this one stands before it.
    """

    def __init__(self, output_dir: str, mode: str, config: dict[str, Any] | None = None):
        """`mode` "offline" or "online"; files go to `output_dir`/wandb. `config` is shown with the run.

        The project is "rethink_pretrain", or what the variable WANDB_PROJECT names. Raises `UserError` for
        another mode, without the package, and where the service refuses.
        """
        if mode not in MODES:
            raise UserError(
                f'RETHINK.WATCH.WANDB is {mode!r}. Choose from {", ".join(MODES)}, or "" for off.'
            )
        self._wandb = _import_wandb()
        folder = Path(output_dir, "wandb")
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / "run_id"
        run_id = known.read_text().strip() if known.is_file() else secrets.token_hex(4)
        try:
            self._run = self._wandb.init(
                project=os.environ.get("WANDB_PROJECT", "rethink_pretrain"),
                name=Path(output_dir).resolve().name,
                id=run_id,
                resume="allow",
                dir=output_dir,
                mode=mode,
                config=config,
                settings=self._wandb.Settings(console="off"),  # or it would take the output from the bar
            )
        except self._wandb.errors.Error as error:
            text = " ".join(str(error).split())
            raise UserError(
                f"Weights & Biases: {text} RETHINK.WATCH.WANDB offline needs no account."
            ) from None
        write_text(known, run_id)
        self._last_write = -1

    def write(self) -> None:
        """What is new in the current event storage since the last call."""
        storage = get_event_storage()
        rows: dict[int, dict[str, Any]] = defaultdict(dict)
        for name, (value, at) in storage.latest_with_smoothing_hint(_LOSS_WINDOW).items():
            if at > self._last_write:
                rows[at][name] = value
        for name, image, at in storage._vis_data:  # the host has no public name for them
            rows[at][name] = self._wandb.Image(np.asarray(image).transpose(1, 2, 0))
        for at in sorted(rows):
            self._run.log(rows[at], step=at)
        self._last_write = max([self._last_write, *rows])

    def close(self) -> None:
        """Write the rest."""
        self._run.finish()


def _import_wandb() -> Any:
    try:
        import wandb
    except ImportError:
        raise UserError(
            'RETHINK.WATCH.WANDB needs the package wandb: pip install wandb. Or set it to "" for none.'
        ) from None
    return wandb
