"""Weights for others: one safetensors file, which holds arrays and text and cannot hold code."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch

from ..errors import UserError
from ..files import write_atomically

SUFFIX = ".safetensors"


def check_output(path: Path, force: bool) -> None:
    """Raises `UserError` for another suffix than .safetensors, and for a file that only `force` replaces."""
    if path.suffix != SUFFIX:
        raise UserError(f"{path}: the name of the file has to end in {SUFFIX}.")
    if path.exists() and not force:
        raise UserError(f"{path} is there already. Replace it with --force, or choose another name.")


def export_weights(path: Path, weights: Mapping[str, torch.Tensor], about: Mapping[str, str]) -> None:
    """Write `weights` with the texts `about` them, so that `read_weights` finds the same names and values.

    Raises `UserError` for a folder that cannot be written.
    """
    # The format stores tensors one after the other and knows none that share memory.
    copies = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in weights.items()
    }
    content = safetensors.torch.save(copies, {"format": "pt", **about})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda file: file.write(content))
    except OSError as error:
        raise UserError(f"Cannot write {path}: {error.strerror or error}.") from None


def read_about(path: Path) -> dict[str, str]:
    """The texts that `export_weights` put beside the weights; {} for a file of another program."""
    with safetensors.safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})
