"""The Triton kernels of GroupNorm on a CPU, by Triton's interpreter, which is chosen before it is imported.

Run by test_fused_norm.py, with the word "quick" or "all"; prints the largest excess of an error over its
bound, which is then at most 0.
"""

import os

os.environ["TRITON_INTERPRET"] = "1"

import itertools
import sys

import torch
from torch.nn import functional as F

from rethink_pretrain.layers.triton_group_norm import TritonGroupNorm

# Channels of our models, with odd sizes; 8 channels have more pixels than a tile in either format.
SHAPES = [
    *((2, 32, 5, 7), (1, 8, 70, 60), (1, 64, 13, 9), (1, 96, 1, 1), (2, 128, 3, 5), (1, 256, 11, 3)),
    *((1, 512, 2, 3), (1, 1024, 3, 1), (1, 2048, 3, 2)),
]
# Of rounding, relative. The interpreter cuts fp32 to bf16, where a GPU rounds: a whole step.
STEP = {torch.float32: 2**-21, torch.bfloat16: 2**-7}
FORMATS = (torch.contiguous_format, torch.channels_last)
RELU_AND_RESIDUAL = ((True, False), (True, True), (False, False))


def draw(shape, dtype, memory_format):
    return (torch.randn(shape) * 2 + 1).to(dtype).to(memory_format=memory_format)


def excess(shape, groups, dtype, memory_format, relu, with_residual):
    """Of result and gradients over float64's plus one rounding to `dtype`; sums of many values get more."""
    x = draw(shape, dtype, memory_format).requires_grad_()
    residual = draw(shape, dtype, memory_format).requires_grad_() if with_residual else None
    weight, bias = torch.rand(shape[1]).requires_grad_(), torch.randn(shape[1]).requires_grad_()
    y = TritonGroupNorm.apply(x, residual, weight, bias, groups, 1e-5, relu)
    grad = draw(shape, dtype, memory_format)
    y.backward(grad)
    assert y.is_contiguous(memory_format=memory_format) and y.dtype == dtype

    leaves = [x, weight, bias, *([residual] if with_residual else [])]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    z = F.group_norm(exact[0], groups, exact[1], exact[2], 1e-5) + (exact[3] if with_residual else 0)
    expected = z * (z > 0) if relu else z
    expected.backward(grad.double())
    pairs = [(y, expected, dtype), *((a.grad, e.grad, a.dtype) for a, e in zip(leaves, exact, strict=True))]
    return max(
        float(((a.double() - e).abs() - (STEP[kind] * e.abs() + 2e-5 * (1 + e.abs().max()))).max())
        for a, e, kind in pairs
    )


if __name__ == "__main__":
    torch.manual_seed(0)
    kinds = list(itertools.product(STEP, FORMATS, RELU_AND_RESIDUAL))
    if sys.argv[1] == "all":
        cases = [(shape, min(32, shape[1]), kind) for shape, kind in itertools.product(SHAPES, kinds)]
    else:
        # Each shape twice and each kind at least once; the second shape in both formats and dtypes. Most have
        # 4 groups, because the interpreter takes its time for each.
        cases = [(s, 32 if s[1] == 96 else 4, kind) for s, kind in zip(2 * SHAPES, 2 * kinds, strict=False)]
    print(max(excess(shape, groups, *kind[:2], *kind[2]) for shape, groups, kind in cases))
