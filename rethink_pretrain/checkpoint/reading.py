"""Weight files of any known layout, read without running what may be in them."""

import math
import os
import pickle
import re
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from ..errors import UserError, one_line
from .pickles import NUMPY_STAND_INS, RefusedError, load_arrays

# What NumPy leaves in checkpoints (metrics, random states), beside what torch itself allows.
_ALLOWED = [(stand_in, name) for name, stand_in in NUMPY_STAND_INS.items()]


def read_weights(path: str, trust_pickle: bool = False) -> dict[str, Any]:
    """The checkpoint in a file of this machine: "model" -> {name: tensor or array}, and what is beside it.

    By the end of its name the file is .pkl (the host's zoo; Detectron, with "matching_heuristics"), .pyth
    (pycls), .safetensors, or else what torch.save wrote: a state_dict, or one under "model" or "state_dict".
    Nothing in the file is run, unless `trust_pickle` lets it. Raises `UserError` for a file that wants
    to, that is broken, or that holds no weights by name.
    """
    if not os.path.isfile(path):
        raise UserError(f"{path} is no file. Give MODEL.WEIGHTS the path of one, or a URL.")
    read, layout = _READERS.get(Path(path).suffix.lower(), (_read_torch, _native))
    try:
        checkpoint = layout(read(path, trust_pickle))
    except RefusedError as error:
        raise UserError(
            f"{path} holds more than arrays ({_first_line(error)}), which could run any program. If you know "
            "who made it, read it all the same with --trust-pickle."
        ) from None
    except Exception as error:  # a broken or hostile file makes the readers raise anything
        raise UserError(f"{path} is no checkpoint, or a damaged one: {_first_line(error)}") from None
    _check_weights(path, checkpoint["model"])
    return checkpoint


def pretraining_in(checkpoint: dict[str, Any]) -> dict[str, float | str]:
    """What a file says about the training that made it: "images", "instances", "pixels", "recipe"; or {}.

    Our own tools write that entry, "pretraining"; what else stands in it is left out.
    """
    told = checkpoint.get("pretraining")
    counts = {} if not isinstance(told, dict) else told
    ret: dict[str, float | str] = {
        name: counts[name]
        for name in ("images", "instances", "pixels")
        if type(counts.get(name)) in (int, float) and 0 <= counts[name] < math.inf
    }
    if ret and isinstance(counts.get("recipe"), str):
        ret["recipe"] = one_line(counts["recipe"][:500])
    return ret


def _first_line(error: Exception) -> str:
    return one_line(str(error).partition("\n")[0][:200]) or type(error).__name__


def _read_pickle(path: str, trust_pickle: bool) -> Any:
    with open(path, "rb") as file:
        return pickle.load(file, encoding="latin1") if trust_pickle else load_arrays(file)


def _read_torch(path: str, trust_pickle: bool) -> Any:
    # Not mapped into memory: on a network file system, deleting the file elsewhere would kill the process.
    _check_archive(path)
    try:
        return _load_torch_safely(path)
    except pickle.UnpicklingError as error:
        if trust_pickle:
            return _load_torch(path, weights_only=False)
        if name := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise RefusedError(name[1]) from None
        # The rest of its words is advice to programmers.
        raise ValueError(str(error).rpartition("WeightsUnpickler error: ")[2].strip()) from None


def _load_torch_safely(path: str) -> Any:
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            return _load_torch(path, weights_only=True)
    except AttributeError:  # torch 2.4 and 2.5 know no names for stand-ins
        return _load_torch(path, weights_only=True)


def _load_torch(path: str, weights_only: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about protocols of pickle, which no user can mend
        return torch.load(path, map_location="cpu", weights_only=weights_only)


def _check_archive(path: str) -> None:
    """torch keeps its archives unpacked, so that one that grows is none of its own."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > os.path.getsize(path):
            raise ValueError(f"it would unpack to {unpacked / 1e6:,.0f} MB, more than the file has")
    elif tarfile.is_tarfile(path):  # torch before 2.6 ran what is in one; a file of zeros looks like one, too
        raise ValueError("it is neither a zip nor a pickle as torch writes them")


def _read_safetensors(path: str, trust_pickle: bool) -> Any:
    return safetensors.torch.load_file(path)


def _zoo_or_caffe2(data: Any) -> dict[str, Any]:
    _check_is_dict(data)
    if "model" in data and "__author__" in data:
        return dict(data)
    blobs = data.get("blobs", data)  # classifiers have none
    _check_is_dict(blobs)
    weights = {name: value for name, value in blobs.items() if not str(name).endswith("_momentum")}
    return {"model": weights, "__author__": "Caffe2", "matching_heuristics": True}


def _pycls(data: Any) -> dict[str, Any]:
    _check_is_dict(data)
    if not isinstance(data.get("model_state"), dict):
        raise ValueError("files of pycls hold model_state")
    weights = {k: v for k, v in data["model_state"].items() if not str(k).endswith("num_batches_tracked")}
    return {"model": weights, "__author__": "pycls", "matching_heuristics": True}


def _native(data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        return {"model": data}
    if "model" in data:
        return dict(data)
    return {"model": data["state_dict"] if isinstance(data.get("state_dict"), dict) else data}


def _check_is_dict(data: Any) -> None:
    if not isinstance(data, dict):
        raise ValueError(f"{type(data).__name__} instead of weights by name")


def _check_weights(path: str, weights: Any) -> None:
    hint = "Save a state_dict, or {'model': state_dict}."
    if not isinstance(weights, dict) or not weights or not all(isinstance(name, str) for name in weights):
        raise UserError(f"{path} holds no weights by name. {hint}")
    size = os.path.getsize(path)
    for name, value in weights.items():
        shown = repr(name[:80])
        if not _is_dense(value):
            raise UserError(f"{path}: {shown} is {type(value).__name__}, not an array of numbers. {hint}")
        if math.prod(value.shape) * value.dtype.itemsize > size:
            raise UserError(f"{path} is damaged: {shown} is larger than the file.")


def _is_dense(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    return isinstance(value, np.ndarray) and value.dtype.kind in "biufc"


_READERS: dict[str, tuple[Callable[[str, bool], Any], Callable[[Any], dict[str, Any]]]] = {
    ".pkl": (_read_pickle, _zoo_or_caffe2),
    ".pyth": (_read_torch, _pycls),
    ".safetensors": (_read_safetensors, _native),
}
