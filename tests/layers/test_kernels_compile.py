"""GroupNorm's Triton kernels are compiled for real GPUs, on a machine without one, as they are launched."""

import importlib
import itertools
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="torch came without Triton")
compiler, backends = (importlib.import_module(f"triton.{name}") for name in ("compiler", "backends.compiler"))
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
if not (TOOLS / "ptxas").exists():
    pytest.skip("this Triton has no ptxas", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET", "0") != "0":
    pytest.skip("Triton interprets its kernels here", allow_module_level=True)

KERNELS = ("_moments", "_join_moments", "_apply", "_gradient_sums", "_apply_gradient")
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
SHAPE = (1, 256, 100, 152)  # p3 of an image of 800 x 1216 px: 4 chunks of pixels in NCHW
VALUES_PER_THREAD = 4096 // (4 * 32)  # of a tile; Triton's default are 4 warps
# relu and residual: at the end of a block; in a head or a block; at a shortcut or in the FPN.
KINDS = {"end": (True, True), "inner": (True, False), "bare": (False, False)}
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
# Any two properties meet in all ways; the slow tests have all combinations of the four.
QUICK = {
    (80, torch.float32, "nchw", "end"),
    (90, torch.bfloat16, "nhwc", "end"),
    (80, torch.bfloat16, "nhwc", "inner"),
    (90, torch.float32, "nchw", "inner"),
    (80, torch.bfloat16, "nchw", "bare"),
    (90, torch.float32, "nhwc", "bare"),
}
CASES = [
    pytest.param(
        *(capability, dtype, LAYOUTS[layout], *KINDS[kind]),
        marks=[] if (capability, dtype, layout, kind) in QUICK else pytest.mark.slow,
        id=f"sm_{capability}-{POINTERS[dtype][1:]}-{layout}-{kind}",
    )
    for capability, dtype, layout, kind in itertools.product((80, 90), POINTERS, LAYOUTS, KINDS)
]


class Recorder:
    """Stands for a kernel and keeps the arguments of its launches."""

    def __init__(self, kernel: triton.JITFunction, launches: list[compiler.ASTSource]):
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        return lambda *args, **constants: self.launches.append(source(self.kernel, args, constants))


def source(kernel: triton.JITFunction, args: tuple, constants: dict) -> compiler.ASTSource:
    """What a launch with these arguments compiles: it looks for ones, and for multiples of 16."""
    names = kernel.arg_names[: len(args)]
    constants = {**constants, **{n: v for n, v in zip(names, args, strict=True) if type(v) is int and v == 1}}
    signature, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
            continue
        value = args[place]
        if isinstance(value, float):
            signature[name] = "fp32"
            continue
        signature[name] = "i32" if isinstance(value, int) else POINTERS[value.dtype]
        if (value if isinstance(value, int) else value.data_ptr()) % 16 == 0:
            attributes[(place,)] = [["tt.divisibility", 16]]
    return compiler.ASTSource(kernel, signature, constants, attributes)


@pytest.fixture
def launch(monkeypatch) -> Callable[..., list]:
    """A forward and a backward pass that run no kernel: a list of what they launch."""
    from rethink_pretrain.layers import triton_group_norm

    launches = []
    for name in KERNELS:
        monkeypatch.setattr(triton_group_norm, name, Recorder(getattr(triton_group_norm, name), launches))

    def run(dtype: torch.dtype, layout: torch.memory_format, relu: bool, with_residual: bool) -> list:
        x = torch.zeros(SHAPE, dtype=dtype).to(memory_format=layout).requires_grad_()
        residual = torch.zeros_like(x) if with_residual else None
        weight, bias = (torch.zeros(SHAPE[1], requires_grad=True) for _ in range(2))
        y = triton_group_norm.TritonGroupNorm.apply(x, residual, weight, bias, 32, 1e-5, relu)
        y.backward(torch.zeros_like(y))
        return launches

    return run


@pytest.fixture(scope="module", autouse=True)
def kernel_cache(tmp_path_factory):
    """Not the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.mktemp("kernels")))
        yield


def maps_read_and_written(name: str, relu: bool, residual: bool) -> tuple[int, int]:
    """How many maps of (N, C, H, W) a kernel has to move; all else is a few numbers per channel."""
    backward_reads = 2 + (relu and residual)  # x, the gradient, and y where ReLU cannot be computed anew
    return {
        "_moments": (1, 0),
        "_join_moments": (0, 0),
        "_apply": (1 + residual, 1),
        "_gradient_sums": (backward_reads, 0),
        "_apply_gradient": (backward_reads, 1 + residual),
    }[name]


def stack_and_local_bytes(compiled: compiler.CompiledKernel, folder: Path) -> list[int]:
    """Of a thread: memory that stands in for registers where they do not suffice."""
    cubin = folder / "kernel.cubin"
    cubin.write_bytes(compiled.asm["cubin"])
    command = [TOOLS / "cuobjdump", "--dump-resource-usage", cubin]
    usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [int(size) for size in re.findall(r"\b(?:STACK|LOCAL):(\d+)", usage)]


@pytest.mark.parametrize(("capability", "dtype", "layout", "relu", "residual"), CASES)
def test_kernels_compile(capability, dtype, layout, relu, residual, launch, tmp_path):
    """To a cubin; maps move by 16 bytes and in their own dtype, results once; no register is spilled."""
    launches = launch(dtype, layout, relu, residual)
    assert [each.name for each in launches] == list(KERNELS)
    for each in launches:
        compiled = triton.compile(each, target=backends.GPUTarget("cuda", capability, 32))
        ptx = compiled.asm["ptx"]
        assert f".target sm_{capability}" in ptx and compiled.asm["cubin"].startswith(b"\x7fELF")
        read, written = maps_read_and_written(each.name, relu, residual)
        wide = VALUES_PER_THREAD * dtype.itemsize // 16  # accesses of a thread to one map
        assert len(re.findall(r"ld\.global\S*\.v4\.", ptx)) >= read * wide, each.name
        assert len(re.findall(r"st\.global\S*\.v4\.", ptx)) == written * wide, each.name
        rounds = re.search(r"cvt\.rn\.(bf16|f16)", ptx) is not None
        assert rounds == (written > 0 and dtype != torch.float32), each.name
        if (TOOLS / "cuobjdump").exists():
            assert stack_and_local_bytes(compiled, tmp_path) == [0, 0], each.name
