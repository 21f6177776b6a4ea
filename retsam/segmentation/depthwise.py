"""Depthwise convolution that trains fast on a CPU.

The gradient of a depthwise kernel is a sum over positions, channel by channel, which the libraries behind torch compute without vector
instructions for kernels of 5 x 5: a quarter of a training step. Here channels are the innermost loop.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numba import njit
from torch import Tensor

_SUMS = {"reassoc", "contract", "arcp", "nsz"}
"""Sums may be rearranged, so that they vectorise. NaN and infinity stay: training leaves out a step whose gradients are not finite."""


@njit(cache=True, fastmath=_SUMS, nogil=True)
def _kernel_gradient(x: np.ndarray, grad: np.ndarray, size: int, stride: int, padding: int) -> np.ndarray:
    """Sum of input times gradient at every offset, ``[size, size, C]``; ``x [B, H, W, C]``, ``grad [B, h, w, C]``, float32."""
    batch, height, width, channels = x.shape
    out = np.zeros((size, size, channels), np.float32)
    row = np.empty((size, channels), np.float32)
    for b in range(batch):
        for i in range(size):
            for v in range(grad.shape[1]):
                y = v * stride + i - padding
                if y < 0 or y >= height:
                    continue
                row[:] = 0  # summed row by row: a float32 that adds a hundred thousand terms one by one loses the last of them
                for u in range(grad.shape[2]):
                    left = u * stride - padding
                    g = grad[b, v, u]
                    for j in range(max(0, -left), min(size, width - left)):
                        to, of = row[j], x[b, y, left + j]
                        for c in range(channels):
                            to[c] += of[c] * g[c]
                for j in range(size):
                    for c in range(channels):
                        out[i, j, c] += row[j, c]
    return out


@njit(cache=True, fastmath=_SUMS, nogil=True)
def _input_gradient(grad: np.ndarray, weight: np.ndarray, height: int, width: int, stride: int, padding: int) -> np.ndarray:
    """Gradient of the input, ``[B, H, W, C]``; ``grad [B, h, w, C]``, ``weight [k, k, C]``, float32."""
    batch, rows, columns, channels = grad.shape
    size = weight.shape[0]
    out = np.zeros((batch, height, width, channels), np.float32)
    for b in range(batch):
        for v in range(rows):
            for i in range(size):
                y = v * stride + i - padding
                if y < 0 or y >= height:
                    continue
                for u in range(columns):
                    left = u * stride - padding
                    g = grad[b, v, u]
                    for j in range(max(0, -left), min(size, width - left)):
                        to, of = out[b, y, left + j], weight[i, j]
                        for c in range(channels):
                            to[c] += of[c] * g[c]
    return out


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = stride, padding, bias is not None
        return F.conv2d(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype), stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (stride, padding, with_bias) = ctx.saved_tensors, ctx.how
        to_x = to_weight = None
        last = grad.float().permute(0, 2, 3, 1).contiguous()
        if ctx.needs_input_grad[0]:
            size, groups = weight.shape[-1], len(weight)
            if stride == 1 and size == 2 * padding + 1:
                to_x = F.conv2d(grad, weight.flip(2, 3).to(grad.dtype), None, 1, padding, groups=groups).to(x.dtype)
            else:
                kernel = weight.float()[:, 0].permute(1, 2, 0).contiguous()
                found = _input_gradient(last.numpy(), kernel.numpy(), *x.shape[2:], stride, padding)
                to_x = torch.from_numpy(found).permute(0, 3, 1, 2).to(x.dtype)
        if ctx.needs_input_grad[1]:
            found = _kernel_gradient(x.float().permute(0, 2, 3, 1).contiguous().numpy(), last.numpy(), weight.shape[-1], stride, padding)
            to_weight = torch.from_numpy(found).permute(2, 0, 1).unsqueeze(1).to(weight.dtype)
        to_bias = grad.float().sum((0, 2, 3)) if with_bias else None
        return to_x, to_weight, to_bias, None, None


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """Depthwise convolution on a CPU, with fast gradients.

    Parameters
    ----------
    x : Tensor, [B, C, H, W]
        Fastest channels-last.
    weight : Tensor, [C, 1, k, k]
    bias : Tensor, [C], or None
    stride, padding : int

    Returns
    -------
    Tensor, [B, C, h, w]
        Of the type of ``x``.
    """
    return _Depthwise.apply(x, weight, bias, stride, padding)
