"""cuDNN's recurrent layers as far as this package calls them, over the host's memory."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

TYPES = {0: np.float32, 1: np.float64, 2: np.float16}
GATES = {0: 1, 1: 1, 2: 4, 3: 3}
GAP = 64
"""Bytes between two weights: what looks for them by itself goes wrong."""


def array(address: Any, dtype: Any, *shape: int) -> Any:
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = (ctypes.c_char * count).from_address(int(getattr(address, "value", address)))
    return np.frombuffer(memory, dtype).reshape(shape)


class FakeCudnn:
    """Functions by name; ``calls`` says which were called. ``status``: what a descriptor gives."""

    def __init__(self, status: int = 0) -> None:
        self.status, self.objects, self.numbers = status, {}, itertools.count(1000)
        self.calls: list[str] = []
        self.stream = 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("cudnn"):
            raise AttributeError(name)
        own = type(self).__dict__.get(name.removeprefix("cudnn"))
        if own is None and not name.startswith(("cudnnCreate", "cudnnDestroy")):
            raise AttributeError(f"cuDNN has no {name}")

        def call(*arguments: Any) -> int:
            self.calls.append(name)
            plain = [item.value if isinstance(item, ctypes.c_void_p) else item for item in arguments]
            if own is not None:
                return int(own(self, *plain) or 0)
            if name.startswith("cudnnCreate"):
                plain[0]._obj.value = number = next(self.numbers)
                self.objects[number] = {}
            else:
                del self.objects[plain[0]]
            return 0

        setattr(self, name, call)
        return call

    def SetStream(self, handle: int, stream: int) -> None:
        self.stream = stream

    def SetDropoutDescriptor(
        self, made: int, handle: int, share: float, states: Any, size: int, seed: int
    ) -> None:
        assert handle in self.objects and share == 0 and not states

    def SetTensorNdDescriptor(self, made: int, kind: int, rank: int, shape: Any, strides: Any) -> None:
        self.objects[made] = {"shape": tuple(shape), "strides": tuple(strides)}

    def SetRNNDescriptor_v8(
        self, made: int, algo: int, mode: int, bias: int, two: int, input_mode: int, kind: int, single: int, maths: int,
        features: int, size: int, projected: int, layers: int, dropout: int, flags: int,
    ) -> int:  # fmt: skip
        assert (algo, input_mode, layers, flags, projected) == (0, 0, 1, 1, size) and dropout in self.objects
        self.objects[made] = {
            "mode": mode, "bias": bias == 2, "two": two, "dtype": TYPES[kind], "features": features, "size": size,
            "math": maths,
        }  # fmt: skip
        return self.status

    def SetRNNDataDescriptor(
        self, made: int, kind: int, layout: int, steps: int, batch: int, width: int, lengths: Any, fill: Any
    ) -> None:
        assert bytes(fill) == bytes(8)
        shape = (batch, steps, width) if layout == 2 else (steps, batch, width)
        self.objects[made] = {"layout": layout, "shape": shape, "lengths": list(lengths), "steps": steps}

    def _places(self, layer: Any) -> list[tuple[int, int, tuple[int, ...]]]:
        """By direction and place: where a matrix begins, where its bias does, its shape."""
        found, at = [], GAP
        each = np.dtype(layer["dtype"]).itemsize
        for _ in range(1 + layer["two"]):
            for place in range(2 * GATES[layer["mode"]]):
                inner = layer["features"] if place < GATES[layer["mode"]] else layer["size"]
                end = at + layer["size"] * inner * each
                found.append((at, end, (layer["size"], inner)))
                at = end + layer["size"] * each + GAP
        return [*found, (at, at, ())]

    def GetRNNWeightSpaceSize(self, handle: int, layer: int, size: Any) -> None:
        size._obj.value = self._places(self.objects[layer])[-1][0]

    def GetRNNTempSpaceSizes(
        self, handle: int, layer: int, mode: int, x: int, work: Any, reserve: Any
    ) -> None:
        work._obj.value, reserve._obj.value = 256, 0

    def GetRNNWeightParams(
        self, handle: int, layer: int, direction: int, size: int, space: int, place: int, m: int, matrix: Any, b: int,
        bias: Any,
    ) -> None:  # fmt: skip
        kept = self.objects[layer]
        start, end, _ = self._places(kept)[direction * 2 * GATES[kept["mode"]] + place]
        matrix._obj.value, bias._obj.value = space + start, space + end

    def RNNForward(
        self, handle: int, layer: int, mode: int, lengths: int, x_place: int, x: int, y_place: int, y: int, h_place: int,
        hx: Any, hy: Any, c_place: int, cx: Any, cy: Any, size: int, space: int, work_size: int, work: int,
        reserve_size: int, reserve: Any,
    ) -> None:  # fmt: skip
        kept, source, target = self.objects[layer], self.objects[x_place], self.objects[y_place]
        assert (mode, work_size, reserve_size, reserve) == (0, 256, 0, None)
        dtype, hidden = kept["dtype"], kept["size"]
        sequence, out = array(x, dtype, *source["shape"]), array(y, dtype, *target["shape"])
        if source["layout"] == 2:
            sequence, out = sequence.swapaxes(0, 1), out.swapaxes(0, 1)
        batch = sequence.shape[1]
        assert list(array(lengths, np.int32, batch)) == source["lengths"] == target["lengths"]
        assert self.objects[h_place]["shape"] == (1 + kept["two"], batch, hidden)
        out[...] = 0
        count = GATES[kept["mode"]]
        for direction in range(1 + kept["two"]):
            parts = self._places(kept)[direction * 2 * count :][: 2 * count]
            weights = [array(space + start, dtype, *shape).astype("d") for start, _, shape in parts]
            biases = [
                array(space + end, dtype, hidden).astype("d") if kept["bias"] else 0 for _, end, _ in parts
            ]
            for item, length in enumerate(source["lengths"]):
                h, c = (
                    np.zeros(hidden)
                    if not state
                    else array(state, dtype, 1 + kept["two"], batch, hidden)[direction, item]
                    for state in (hx, cx)
                )
                for step in range(length):
                    t = length - 1 - step if direction else step
                    given = [
                        w @ sequence[t, item] + b
                        for w, b in zip(weights[:count], biases[:count], strict=True)
                    ]
                    own = [w @ h + b for w, b in zip(weights[count:], biases[count:], strict=True)]
                    h, c = cell(kept["mode"], given, own, h, c)
                    out[t, item, direction * hidden : (direction + 1) * hidden] = h
                for state, value in ((hy, h), (cy, c)):
                    if state:
                        array(state, dtype, 1 + kept["two"], batch, hidden)[direction, item] = value


def cell(mode: int, given: list[Any], own: list[Any], h: Any, c: Any) -> tuple[Any, Any]:
    """One step, in the library's order of gates."""
    sums = [x + y for x, y in zip(given, own, strict=True)]
    if mode < 2:
        return (np.tanh(sums[0]) if mode else np.maximum(sums[0], 0)), c
    if mode == 2:
        i, f, o = (1 / (1 + np.exp(-sums[k])) for k in (0, 1, 3))
        c = f * c + i * np.tanh(sums[2])
        return o * np.tanh(c), c
    r, i = (1 / (1 + np.exp(-sums[k])) for k in (0, 1))
    return (1 - i) * np.tanh(given[2] + r * own[2]) + i * h, c
