"""What the stand-in's libraries compute, over NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np


def gelu_tanh(x: Any) -> Any:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def convolve(arrays: Any, strides: Any, pads: Any, dilations: Any, groups: int, relu: float) -> None:
    source, weight, target, bias, residual = arrays
    wide = np.pad(source.astype(np.float32), [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])])
    each, found = source.shape[1] // groups, np.zeros(target.shape, np.float32)
    rows, columns = target.shape[2:]
    for group in range(groups):
        made = slice(*(np.array([group, group + 1]) * (weight.shape[0] // groups)))
        part = wide[:, group * each : (group + 1) * each]
        for i, j in np.ndindex(*weight.shape[2:]):
            down, right = i * dilations[0], j * dilations[1]
            seen = part[:, :, down :: strides[0], right :: strides[1]][:, :, :rows, :columns]
            found[:, made] += np.einsum("nchw,mc->nmhw", seen, weight[made, :, i, j].astype(np.float32))
    for extra in (bias, residual):
        found = found if extra is None else found + extra
    target[...] = np.clip(found, 0, relu) if relu else found


def attend(arrays: Any, scale: float, causal: bool) -> None:
    q, k, v, mask, out = (None if item is None else item.astype(np.float32) for item in arrays)
    each = q.shape[1] // k.shape[1]
    scores = q @ k.repeat(each, 1).swapaxes(2, 3) * scale
    scores = scores if mask is None else scores + mask
    if causal:
        scores += np.triu(np.full(scores.shape[2:], -np.inf), 1)
    share = np.exp(scores - scores.max(-1, keepdims=True))
    arrays[4][...] = share / share.sum(-1, keepdims=True) @ v.repeat(each, 1)
