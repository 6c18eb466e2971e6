"""How the channels of images can lie: [batch, channels, spatial axes] as the standard has it, or otherwise.

A layout says how a value gets into it and out of it, in a graph, in the body of a function, and for constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from .rule import Scope, producer
from .shapes import dims_text, rank_of
from .simplify_transposes import permutation

Array = np.ndarray[Any, Any]


def to_last(rank: int) -> list[int]:
    """[0, 2, 3, ..., 1]: the permutation that takes the channels to the end."""
    return [0, *range(2, rank), 1]


def to_first(rank: int) -> list[int]:
    """[0, n, 1, 2, ...]: the permutation that takes them back."""
    return [0, rank - 1, *range(1, rank - 1)]


@dataclass(frozen=True)
class Layout:
    """One way in which channels lie.

    Attributes:
        domain: of the operators whose data lies so. A provider asks for the layout by knowing them.
        name: for the names of rules.
    """

    domain: str
    name: str

    def refusal(self, value: ir.Value | None) -> str | None:
        """Why a value cannot be brought into the layout, or None."""
        rank = rank_of(value)
        if value is None or rank is None or rank < 3:
            return (
                f"the number of axes of {dims_text(value)} is unknown, or too small" if value else "no value"
            )
        return None

    def shape(self, value: ir.Value) -> ir.Shape:
        """What the shape of a value becomes."""
        raise NotImplementedError

    def array(self, array: Array) -> Array | None:
        """A constant with a size, or 1, for each axis; None if it does not fit."""
        raise NotImplementedError

    def axis(self, axis: int, rank: int) -> int:
        """Where an axis goes."""
        raise NotImplementedError

    def entering(self, value: ir.Value, like: ir.Value) -> list[ir.Node]:
        """The nodes that bring a value into the layout, shaped as ``like`` is before."""
        raise NotImplementedError

    def leaving(self, value: ir.Value, like: ir.Value) -> list[ir.Node]:
        """The nodes that bring it back."""
        raise NotImplementedError

    def enter(self, value: ir.Value, before: ir.Node, scope: Scope) -> ir.Value:
        """The value in the layout."""
        raise NotImplementedError

    def leave(self, value: ir.Value, like: ir.Value, before: ir.Node, scope: Scope) -> ir.Value:
        """The value as the standard has it, in the place of ``like``."""
        raise NotImplementedError

    def left(self, value: ir.Value | None) -> ir.Value | None:
        """What lies in the layout, of a value that was brought back from there; else None."""
        raise NotImplementedError


class ChannelsLast(Layout):
    """[batch, spatial axes, channels], by transpositions."""

    def shape(self, value: ir.Value) -> ir.Shape:
        assert value.shape is not None
        return ir.Shape([value.shape[axis] for axis in to_last(len(value.shape))])

    def array(self, array: Array) -> Array | None:
        return array.transpose(to_last(array.ndim))

    def axis(self, axis: int, rank: int) -> int:
        return to_first(rank)[axis]

    def entering(self, value: ir.Value, like: ir.Value) -> list[ir.Node]:
        return [_transposed(value, to_last(rank_of(like) or 0))]

    def leaving(self, value: ir.Value, like: ir.Value) -> list[ir.Node]:
        return [_transposed(value, to_first(rank_of(like) or 0))]

    def enter(self, value: ir.Value, before: ir.Node, scope: Scope) -> ir.Value:
        made = scope.make(before, "Transpose", [value], {"perm": to_last(rank_of(value) or 0)}, version=13)
        made.type, made.shape = value.type, self.shape(value)
        return made

    def leave(self, value: ir.Value, like: ir.Value, before: ir.Node, scope: Scope) -> ir.Value:
        perm = to_first(rank_of(like) or 0)
        return scope.make(before, "Transpose", [value], {"perm": perm}, version=13, like=like)

    def left(self, value: ir.Value | None) -> ir.Value | None:
        before = producer(value, "Transpose")
        perm = None if before is None else permutation(before)
        is_back = perm is not None and len(perm) > 2 and perm == to_first(len(perm))
        return before.inputs[0] if before is not None and is_back else None


@dataclass(frozen=True)
class Blocks(Layout):
    """[batch, channels / size, spatial axes, size], by ``ToBlocks`` and ``FromBlocks``, operators of the domain.

    As any fused operator these carry their meaning, as transpositions around a reshape.
    """

    size: int

    def refusal(self, value: ir.Value | None) -> str | None:
        problem = super().refusal(value)
        if problem is not None or value is None or value.shape is None:
            return problem
        channels = value.shape[1]
        if not isinstance(channels, int) or channels % self.size or not channels:
            return f"the channels of {dims_text(value)} are not known to be a multiple of {self.size}"
        return None

    def shape(self, value: ir.Value) -> ir.Shape:
        assert value.shape is not None
        return ir.Shape([value.shape[0], _channels(value) // self.size, *list(value.shape)[2:], self.size])

    def array(self, array: Array) -> Array | None:
        if array.shape[1] == 1:
            return array[..., None]
        if array.shape[1] % self.size:
            return None
        split = array.reshape(len(array), -1, self.size, *array.shape[2:])
        return np.moveaxis(split, 2, -1)

    def axis(self, axis: int, rank: int) -> int:
        return axis

    def entering(self, value: ir.Value, like: ir.Value) -> list[ir.Node]:
        rank = rank_of(like) or 0
        last = _transposed(value, to_last(rank))
        split = _reshaped(last.outputs[0], [0] * (rank - 1) + [_channels(like) // self.size, self.size])
        return [last, *split, _transposed(split[-1].outputs[0], [0, rank - 1, *range(1, rank - 1), rank])]

    def leaving(self, value: ir.Value, like: ir.Value) -> list[ir.Node]:
        rank = rank_of(like) or 0
        last = _transposed(value, [0, *range(2, rank), 1, rank])
        joined = _reshaped(last.outputs[0], [0] * (rank - 1) + [_channels(like)])
        return [last, *joined, _transposed(joined[-1].outputs[0], to_first(rank))]

    def enter(self, value: ir.Value, before: ir.Node, scope: Scope) -> ir.Value:
        made = self._call("ToBlocks", value, value, before, scope)
        made.type, made.shape = value.type, self.shape(value)
        return made

    def leave(self, value: ir.Value, like: ir.Value, before: ir.Node, scope: Scope) -> ir.Value:
        made = self._call("FromBlocks", value, like, before, scope)
        made.type, made.shape = like.type, like.shape
        return made

    def left(self, value: ir.Value | None) -> ir.Value | None:
        node = None if value is None else value.producer()
        is_back = node is not None and (node.domain, node.op_type) == (self.domain, "FromBlocks")
        return node.inputs[0] if node is not None and is_back else None

    def _call(self, op_type: str, value: ir.Value, like: ir.Value, before: ir.Node, scope: Scope) -> ir.Value:
        """A call of a function that all values of as many axes and channels share."""
        overload = f"{rank_of(like)}_axes_{_channels(like)}_channels"
        if (self.domain, op_type, overload) not in scope.model.functions:
            formal = ir.Value(name="x", type=value.type)
            nodes = (self.entering if op_type == "ToBlocks" else self.leaving)(formal, like)
            body = ir.Graph(
                [formal], nodes[-1].outputs, nodes=nodes, opset_imports=dict(scope.model.opset_imports)
            )
            function = ir.Function(self.domain, op_type, overload, graph=body, attributes=[])
            scope.model.functions[function.identifier()] = function
            scope.model.opset_imports.setdefault(self.domain, 1)
        name = scope.fresh(f"{before.name}/{op_type}")
        node = ir.Node(self.domain, op_type, [value], overload=overload, version=1, name=name)
        scope.insert(before, node)
        return node.outputs[0]


def _channels(value: ir.Value) -> int:
    channels = None if value.shape is None else value.shape[1]
    assert isinstance(channels, int)
    return channels


def _transposed(value: ir.Value, perm: Sequence[int]) -> ir.Node:
    return ir.Node("", "Transpose", [value], [ir.AttrInt64s("perm", list(perm))], version=13)


def _reshaped(value: ir.Value, target: Sequence[int]) -> list[ir.Node]:
    held = ir.AttrTensor("value", ir.Tensor(np.array(target, np.int64)))
    constant = ir.Node("", "Constant", [], [held], version=13)
    return [constant, ir.Node("", "Reshape", [value, constant.outputs[0]], version=13)]


LAYOUTS: tuple[Layout, ...] = (
    ChannelsLast("epkit.channels_last", "channels_last"),
    *(Blocks(f"epkit.blocks_of_{size}", f"blocks_of_{size}", size) for size in (4, 8, 16, 32)),
)
"""All that a provider can ask for."""
