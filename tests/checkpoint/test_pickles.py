"""The unpickler for weight files: what it reads it reads as pickle does, and all else it refuses."""

import collections
import io
import pickle
import sys

import numpy as np
import pytest
import torch

from rethink_pretrain.checkpoint.pickles import Array, RefusedError, load_arrays

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
GRID = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
TYPES = "?bhilqBHILQefdFD"
# As NumPy 1 on Python 2 wrote it: {"a_w": np.array([[1, 2]], "f4")}, protocol 2, cPickle.
PYTHON2 = (
    b"\x80\x02}q\x01U\x03a_wq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00"
    b"\x85U\x01b\x87Rq\x05(K\x01K\x01K\x02\x86cnumpy\ndtype\nq\x06U\x02f4K\x00K\x01\x87Rq\x07(K\x03U\x01<NNNJ"
    b"\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00@tbs."
)


def load(content: bytes):
    return load_arrays(io.BytesIO(content))


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call

    def __repr__(self):  # the name of a test: the same in every process
        return f"a call of {self.call[0].__name__}"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        *(np.arange(6).astype(code).reshape(2, 3) for code in TYPES),
        np.asfortranarray(GRID),
        GRID[::2, 1:, ::-1],
        GRID.astype(">f4"),
        np.array(3.5),
        np.zeros((0, 4)),
        GRID[:0],
    ],
    ids=lambda array: f"{array.dtype.str}{array.shape}",
)
def test_arrays_as_pickle_reads_them(protocol, array):
    content = pickle.dumps({"a": array}, protocol)
    read, wanted = load(content)["a"], pickle.loads(content)["a"]
    np.testing.assert_array_equal(read, wanted)
    assert (read.shape, read.dtype) == (wanted.shape, wanted.dtype.newbyteorder("="))
    assert read.flags.writeable
    torch.testing.assert_close(torch.from_numpy(read), torch.from_numpy(wanted.astype(read.dtype)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_everything_else_that_weight_files_hold(protocol):
    wanted = {
        "scalar": np.float64(2.5),
        "flag": np.bool_(True),
        "text": "ä",
        "bytes": b"\x00\xff",
        "none": None,
        "list": [1, 2.5, -(2**70), True],
        "tuple": (1, (2, 3)),
        "ordered": collections.OrderedDict(b=1, a=2),
    }
    read = load(pickle.dumps(wanted, protocol))
    assert read == wanted
    assert list(read["ordered"]) == ["b", "a"]
    assert read["scalar"].dtype == np.float64


def test_python_2():
    assert pickle.loads(PYTHON2, encoding="latin1")["a_w"].tolist() == [[1, 2]]
    np.testing.assert_array_equal(load(PYTHON2)["a_w"], np.array([[1, 2]], np.float32))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tensors(protocol):
    tensor = torch.arange(6.0).reshape(2, 3).t()
    read = load(pickle.dumps({"t": tensor, "p": torch.nn.Parameter(tensor)}, protocol))
    assert torch.equal(read["t"], tensor) and torch.equal(read["p"], tensor)


def test_saved_again_it_is_an_array_of_numpy():
    read = load(pickle.dumps(GRID, 2))
    assert isinstance(read, Array)
    assert type(pickle.loads(pickle.dumps(read))) is np.ndarray


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (print, "print"),
        (Calls(eval, "1"), "eval"),
        (Calls(getattr, "", "join"), "getattr"),
        (Calls(np.load, "x"), r"numpy\.load"),
        (Calls(torch.load, "x"), r"torch\.serialization\.load"),
        (np.array([object]), "'O8'"),
        (np.array([{}], dtype=object), "'O8'"),
        (np.zeros(1, "f4,O"), "'V12'"),
        (np.array(["text"]), "'U4'"),
        (np.array(1, "M8[s]"), "'M8'"),
        (slice(1), "slice"),
        (collections.Counter(), r"collections\.Counter"),
        (torch.float32, r"torch\.float32|getattr|_get_dtype"),
    ],
    ids=repr,
)
def test_refused_by_name(protocol, value, name):
    with pytest.raises(RefusedError, match=name):
        load(pickle.dumps({"a": value}, protocol))


def program(*parts: bytes) -> bytes:
    return b"".join(parts) + b"."


NDARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nI0\nt"
FLOAT = b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR"


class TestByHand:
    """What no pickler writes."""

    def test_an_array_of_a_list_of_objects(self):
        """What NumPy itself would take for the elements of an object array."""
        state = b"(I1\n(I1\nt" + FLOAT + b"I00\n(I1\nltb"
        content = program(b"(", b"cnumpy.core.multiarray\n_reconstruct\n(tR", state, b"t")
        with pytest.raises(RefusedError, match="array of objects"):
            load(content)

    def test_a_type_of_nothing(self):
        content = program(b"cnumpy.core.multiarray\n_reconstruct\n(tR", b"(I1\n(I1\ntNI00\nS'ab'\ntb")
        with pytest.raises(RefusedError, match="array of no numbers"):
            load(content)

    @pytest.mark.parametrize("shape", [b"I2\n", b"I-1\n", b"I4611686018427387904\nI4\n", b"S'x'\n", b"N"])
    def test_a_shape_that_does_not_fit_its_bytes(self, shape):
        state = b"(I1\n(" + shape + b"t" + FLOAT + b"I00\nS'abcd'\ntb"
        content = program(b"cnumpy.core.multiarray\n_reconstruct\n(tR", state)
        with pytest.raises((ValueError, TypeError, MemoryError)):
            load(content)

    @pytest.mark.parametrize("state", [b"N", b"I1\n", b"(tI1\n", b"(dI1\n", b"(lI1\n"])
    def test_an_array_with_another_state(self, state):
        with pytest.raises((TypeError, ValueError, pickle.UnpicklingError)):
            load(program(b"cnumpy.core.multiarray\n_reconstruct\n(tR", state, b"b", b"b"))

    def test_a_function_is_not_changed(self):
        content = program(b"c_codecs\nencode\n", b"(N(S'__defaults__'\n(I1\ntdtb")
        with pytest.raises(pickle.UnpicklingError, match="changes a function"):
            load(content)

    @pytest.mark.parametrize("name", ["numpy\nndarray.__reduce__", "collections\nOrderedDict.fromkeys"])
    def test_dots_lead_nowhere(self, name):
        parts = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in name.split("\n"))
        with pytest.raises(RefusedError):
            load(program(b"\x80\x04", parts, b"\x93"))

    @pytest.mark.parametrize("codec", ["zlib", "rot13", "idna", "utf-8"])
    def test_other_codecs(self, codec):
        with pytest.raises(RefusedError, match=codec):
            load(program(b"c_codecs\nencode\n(S'a'\nS'", codec.encode(), b"'\ntR"))

    @pytest.mark.parametrize("put", [b"r\xff\xff\xff\x7f", b"p2147483647\n"])
    def test_a_memo_of_all_memory(self, put):
        """Ten bytes, for which the standard library reserves and fills 32 GB."""
        with pytest.raises(pickle.UnpicklingError, match="places in"):
            load(program(b"}", put))

    @pytest.mark.parametrize("size", [b"\xff\xff\xff\x7f", b"\xff\xff\xff\x0f"])
    def test_sizes_beyond_the_end(self, size):
        for opcode in (b"X", b"B", b"T"):
            with pytest.raises((ValueError, pickle.UnpicklingError)):
                load(program(opcode, size, b"abc"))
        for opcode in (b"\x8d", b"\x8e", b"\x96"):
            with pytest.raises((ValueError, pickle.UnpicklingError)):
                load(program(opcode, size, b"\0\0\0\0abc"))

    def test_nesting_is_no_recursion(self):
        value = load(
            program(b"]" * (10 * sys.getrecursionlimit()), b"a" * (10 * sys.getrecursionlimit() - 1))
        )
        while value:
            (value,) = value


@pytest.mark.parametrize("content", [b"", b".", b"\x80\x04", b"no pickle", bytes(100), b"(", b"\x80\x63N."])
def test_broken(content):
    with pytest.raises((ValueError, EOFError, pickle.UnpicklingError, IndexError)):
        load(content)


def test_every_prefix_of_a_file_ends_in_an_exception():
    content = pickle.dumps({"a_w": GRID, "b": [1, "x"]}, 2)
    for end in range(len(content)):
        with pytest.raises(Exception):  # noqa: B017 - any, but no crash
            load(content[:end])
