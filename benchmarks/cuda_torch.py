"""The benchmark's models in PyTorch: the same graph, node by node in torch's functions, with the same weights.

A list of calls is what ``torch.compile`` sees, and what it turns into kernels of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch.nn import functional

from .cuda_models import DTYPES

Function = Callable[..., Any]


def as_torch(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A copy of an array; torch does not know NumPy's bfloat16."""
    if array.dtype == DTYPES["bf16"][0]:
        return torch.from_numpy(array.view(np.uint16).copy().view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))


class Graph(torch.nn.Module):
    """A model whose operators are those of ``cuda_models``.

    Args:
        path: of the model.
        device: where its weights go.
    """

    def __init__(self, path: Path, device: str) -> None:
        super().__init__()
        model = onnx.load(path)
        self.known = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.names: dict[str, str] = {}
        for name, array in self.known.items():
            if array.dtype.kind != "i":
                self.register_buffer(name, as_torch(array).to(device))
        self.inputs = [value.name for value in model.graph.input]
        self.outputs = [value.name for value in model.graph.output]
        self.calls = [
            (FUNCTIONS[node.op_type], list(node.input), list(node.output), self._attributes(node))
            for node in model.graph.node
        ]
        self.known = {name: array for name, array in self.known.items() if array.dtype.kind == "i"}

    def _attributes(self, node: onnx.NodeProto) -> dict[str, Any]:
        return {item.name: helper.get_attribute_value(item) for item in node.attribute}

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All outputs."""
        values: dict[str, Any] = dict(zip(self.inputs, inputs, strict=True))
        for function, names, made, attributes in self.calls:
            given = [self._value(name, values) for name in names]
            result = function(*given, **attributes)
            values.update(zip(made, result if isinstance(result, tuple) else (result,), strict=False))
        return tuple(values[name] for name in self.outputs)

    def _value(self, name: str, values: Mapping[str, Any]) -> Any:
        if not name:
            return None
        if name in values:
            return values[name]
        return self.known[name] if name in self.known else getattr(self, name)


def conv(x: Any, w: Any, b: Any, strides: Any = (1, 1), pads: Any = (0, 0, 0, 0), group: int = 1) -> Any:
    return functional.conv2d(x, w, b, strides, list(pads[:2]), 1, group)


def gemm(a: Any, b: Any, c: Any = None, transB: int = 0) -> Any:
    return functional.linear(a, b if transB else b.T, c)


def attention(
    q: Any, k: Any, v: Any, mask: Any = None, past_key: Any = None, past_value: Any = None, *,
    q_num_heads: int, kv_num_heads: int, is_causal: int = 0,
) -> Any:  # fmt: skip
    """Of joined heads; causal with a past only for one query, which sees everything."""
    q, k, v = (
        x.unflatten(-1, (heads, -1)).transpose(1, 2)
        for x, heads in ((q, q_num_heads), (k, kv_num_heads), (v, kv_num_heads))
    )
    if past_key is not None:
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
        assert q.shape[2] == 1 or not is_causal
    causal = bool(is_causal) and past_key is None
    shared = q_num_heads != kv_num_heads
    y = functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=shared)
    return y.transpose(1, 2).flatten(2), k, v


def rotary(x: Any, cos: Any, sin: Any, places: Any, num_heads: int) -> Any:
    heads = x.unflatten(-1, (num_heads, -1))
    low, high = heads.chunk(2, -1)
    c, s = cos[places].unsqueeze(2), sin[places].unsqueeze(2)
    return torch.cat([low * c - high * s, high * c + low * s], -1).flatten(2)


def gather(x: Any, indices: Any, axis: int = 0) -> Any:
    if isinstance(indices, np.ndarray):
        return x.select(axis, int(indices))
    return functional.embedding(indices, x)


FUNCTIONS: dict[str, Function] = {
    "Add": torch.add,
    "Attention": attention,
    "Clip": lambda x, low, high: functional.relu6(x),
    "Concat": lambda *parts, axis: torch.cat(parts, axis),
    "Conv": conv,
    "Flatten": lambda x: x.flatten(1),
    "Gather": gather,
    "Gelu": functional.gelu,
    "Gemm": gemm,
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
    "Identity": lambda x: x,
    "LayerNormalization": lambda x, g, b, epsilon: functional.layer_norm(x, g.shape, g, b, epsilon),
    "MatMul": torch.matmul,
    "MaxPool": lambda x, kernel_shape, strides, pads: functional.max_pool2d(
        x, kernel_shape, strides, pads[0]
    ),
    "Mul": torch.mul,
    "RMSNormalization": lambda x, g, epsilon: functional.rms_norm(x, g.shape, g, epsilon),
    "Relu": functional.relu,
    "Reshape": lambda x, shape: x.flatten(2) if list(shape)[::2] == [0, -1] else x.reshape(*shape),
    "RotaryEmbedding": rotary,
    "Sigmoid": torch.sigmoid,
    "Transpose": lambda x, perm: x.permute(perm),
}
