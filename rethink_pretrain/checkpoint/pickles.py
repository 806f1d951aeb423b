"""Pickles of arrays, read without running anything that they ask for.

The weight files of Detectron (Caffe2) and of the host's zoo are pickles of dicts of NumPy arrays. Such a file
needs a handful of names. None of them leads to code of NumPy, whose own `__setstate__` trusts what it is
given: each is a stand-in that builds a plain array after it has looked at what it is made of.

A flag for every pickle would be less safe: users who need it for each file of the zoo give it always.
"""

import collections
import io
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import torch

_NUMBERS = re.compile(r"b1|[iu][1248]|f[248]|f16|c8|c16")  # anything else may hold Python objects


class RefusedError(pickle.UnpicklingError):
    """A pickle that wants more than arrays; the message is the name that it asks for."""


def load_arrays(file: IO[bytes]) -> Any:
    """What the pickle at the start of `file`, which can seek, holds: dicts, lists, numbers, text and arrays.

    Raises `RefusedError` for a pickle that asks for anything else, and any other exception for a broken one.
    """
    _check_memo(file)
    file.seek(0)
    return _Unpickler(file, encoding="latin1").load()  # Python 2 wrote those of Caffe2


def _check_memo(file: IO[bytes]) -> None:
    # The place where an object is remembered is a number in the file, and the list grows up to it: ten bytes
    # could ask for all memory. In a true pickle there are fewer of them than bytes.
    for opcode, argument, position in pickletools.genops(file):
        if opcode.name in ("PUT", "LONG_BINPUT") and argument > position:
            raise pickle.UnpicklingError(f"it asks for {argument:,} places in {position:,} bytes")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        full_name = f"{module}.{name}"
        if full_name == "collections.OrderedDict":
            return collections.OrderedDict
        if full_name not in _STAND_INS:
            raise RefusedError(full_name)
        return _Call(_STAND_INS[full_name])


class _Call:
    """A function that a pickle may call, but neither change nor look into."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a function")


class NumberType:
    """Stands in for `numpy.dtype`: types of numbers alone."""

    def __init__(self, code: str, align: bool = False, copy: bool = True):
        if not (isinstance(code, str) and _NUMBERS.fullmatch(code)):
            raise RefusedError(f"an array of {code!r}")
        self._code, self._order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = {"<": "<", ">": ">", "|": "=", "=": "="}[state[1]]

    def resolve(self) -> np.dtype:
        """The type itself."""
        return np.dtype(self._order + self._code)


class Array(np.ndarray):
    """Stands in for `numpy.ndarray` and for the function that makes an empty one; then the state follows."""

    def __new__(cls, *_: Any) -> "Array":
        return super().__new__(cls, (0,))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, number, is_fortran, data = state
        super().__setstate__((1, shape, _resolve(number), bool(is_fortran), _to_bytes(data)))

    def __reduce_ex__(self, protocol: int) -> Any:
        return self.view(np.ndarray).__reduce_ex__(protocol)  # saved again, it is a plain array


def _resolve(number: Any) -> np.dtype:
    if not isinstance(number, NumberType):
        raise RefusedError("an array of no numbers")
    return number.resolve()


def _to_bytes(data: Any) -> bytes:
    """Those of an array. A list would be its Python objects."""
    if not isinstance(data, (bytes, bytearray, str)):
        raise RefusedError("an array of objects")
    return data.encode("latin1") if isinstance(data, str) else bytes(data)


def _from_buffer(data: Any, number: Any, shape: tuple[int, ...], order: str) -> np.ndarray:
    array = np.frombuffer(_to_bytes(data), _resolve(number)).reshape(shape, order=order)
    return np.array(array, array.dtype.newbyteorder("="))  # a copy, which can be written


def _read_scalar(number: Any, data: Any) -> np.generic:
    (value,) = np.frombuffer(_to_bytes(data), _resolve(number))
    return value


def _empty_bytes() -> bytes:  # with arguments it could ask for all memory
    return b""


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":  # how pickles of Python 3 that Python 2 can read hold bytes
        raise RefusedError(f"the codec {encoding!r}")
    return text.encode("latin1")


def _read_storage(data: Any) -> Any:
    return torch.load(io.BytesIO(_to_bytes(data)), map_location="cpu", weights_only=True)


NUMPY_STAND_INS: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": Array,
    "numpy.dtype": NumberType,
    "numpy.core.multiarray._reconstruct": Array,
    "numpy.core.multiarray.scalar": _read_scalar,
    "numpy.core.numeric._frombuffer": _from_buffer,
    "numpy._core.multiarray._reconstruct": Array,  # NumPy 2 renamed its core
    "numpy._core.multiarray.scalar": _read_scalar,
    "numpy._core.numeric._frombuffer": _from_buffer,
}
_STAND_INS: dict[str, Callable[..., Any]] = {
    **NUMPY_STAND_INS,
    "__builtin__.bytes": _empty_bytes,
    "_codecs.encode": _encode,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
    "torch.storage._load_from_bytes": _read_storage,
}
