"""A fused chain under construction: what it reads, its instructions, and their form for the native kernel."""

from __future__ import annotations

import struct
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ..native import tile_knows, tile_ops, tile_types
from .types import kind_of

if TYPE_CHECKING:
    import onnx_ir as ir

MOST_INSTRUCTIONS = 48
COSTS = {"exp": 8, "log": 8, "tanh": 12, "erf": 12, "sigmoid": 10, "gelu": 14, "gelu_tanh": 14, "swish": 12}
COSTS |= {"pow": 24, "sin": 12, "cos": 12, "softplus": 20, "elu": 20, "mish": 14, "div": 2, "sqrt": 3}
COSTS |= {"mod": 16, "quantise_int8": 3, "quantise_uint8": 3}


class Unsupported(Exception):
    """The chain cannot express a node."""


class Register(NamedTuple):
    """A value within a chain: an input, a literal or the result of an instruction."""

    number: int
    kind: str


@dataclass(eq=False)
class Chain:
    """A chain under construction: registers are numbered as they appear, and renumbered at the end."""

    inputs: list[ir.Value] = field(default_factory=list)
    literals: list[tuple[str, float | int]] = field(default_factory=list)
    instructions: list[tuple[str, str, int, tuple[int, ...], bytes]] = field(default_factory=list)
    values: dict[ir.Value, Register] = field(default_factory=dict)
    nodes: list[ir.Node] = field(default_factory=list)
    origins: list[tuple[str, int]] = field(default_factory=list)

    def value(self, value: ir.Value | None) -> Register:
        """The register of a value; it becomes an input if the chain does not compute it."""
        if value is None:
            raise Unsupported
        if value not in self.values:
            kind = kind_of(value)
            if kind not in tile_types():
                raise Unsupported
            self.values[value] = self._new(kind, "input", len(self.inputs))
            self.inputs.append(value)
        return self.values[value]

    def literal(self, number: float | int, kind: str) -> Register:
        """A number of an element type."""
        item = (kind, number)
        if item in self.literals and number == number:
            return Register(self.origins.index(("literal", self.literals.index(item))), kind)
        self.literals.append(item)
        return self._new(kind, "literal", len(self.literals) - 1)

    def emit(self, op: str, *operands: Register, to: str = "", x: float = 0.0, y: float = 0.0) -> Register:
        """An instruction; the type is that of the last operand, ``to`` that of the result if it differs."""
        kind = operands[-1].kind
        if not tile_knows(op, kind) or len(self.instructions) >= MOST_INSTRUCTIONS:
            raise Unsupported
        result = self._new(to or kind, "temporary", len(self.instructions))
        parameters = struct.pack("<2d", x, y)
        self.instructions.append((op, kind, result.number, tuple([r.number for r in operands]), parameters))
        return result

    def cast(self, x: Register, kind: str) -> Register:
        """The register in another element type."""
        return x if x.kind == kind else self.emit(f"cast_{kind}", x, to=kind)

    def _new(self, kind: str, origin: str, index: int) -> Register:
        self.origins.append((origin, index))
        return Register(len(self.origins) - 1, kind)

    def look(self) -> Hashable:
        """Equal for chains that do the same."""
        kinds = tuple([self.values[value].kind for value in self.inputs])
        return tuple(self.instructions), tuple(map(repr, self.literals)), tuple(self.origins), kinds

    def pack(self, results: Sequence[ir.Value]) -> bytes:
        """The attributes of the native kernel: see ``Chain`` in ops/pointwise.h."""
        wanted = [self.values[value].number for value in results]
        place, count = self._allocate(wanted)
        n_registers = len(self.inputs) + len(self.literals) + count
        tile = 4096
        while tile > 256 and tile * n_registers * 4 > 24576:
            tile //= 2
        cost = sum(COSTS.get(op, 1 if kind != "float64" else 2) for op, kind, *_ in self.instructions)
        body = [struct.pack("<4i", len(self.inputs), len(self.literals), count, len(self.instructions))]
        body.append(struct.pack("<4i", len(results), tile, cost, 0))
        for kind, number in self.literals:
            whole = 0 if "float" in kind else int(number)
            if whole >= 2**63:
                whole -= 2**64
            body.append(struct.pack("<dqii", float(number), whole, tile_types()[kind], 0))
        for op, kind, result, operands, parameters in self.instructions:
            abc = [place[r] for r in operands] + [-1] * (3 - len(operands))
            body.append(struct.pack("<6i", tile_ops()[op], tile_types()[kind], place[result], *abc))
            body.append(parameters)
        body.append(struct.pack(f"<{len(wanted)}i", *(place[r] for r in wanted)))
        return b"".join(body)

    def may_overwrite(self, results: Sequence[ir.Value]) -> tuple[tuple[int, int], ...]:
        """Pairs (result, input) of one type, the result made when the input has been read for the last time."""
        last = {r: i for i, item in enumerate(self.instructions) for r in item[3]}
        made = {item[2]: i for i, item in enumerate(self.instructions)}
        return tuple(
            (k, j)
            for k, result in enumerate(results)
            for j, value in enumerate(self.inputs)
            if (to := self.values[result]).kind == (source := self.values[value]).kind
            and to.number in made
            and last.get(source.number, len(made)) <= made[to.number]
        )

    def _allocate(self, wanted: list[int]) -> tuple[dict[int, int], int]:
        """Numbers as the kernel counts them; temporaries share a register where their lives allow it."""
        last = {r: i for i, item in enumerate(self.instructions) for r in item[3]}
        place: dict[int, int] = {}
        free: list[int] = []
        count = 0
        base = len(self.inputs) + len(self.literals)
        for number, (origin, index) in enumerate(self.origins):
            if origin != "temporary":
                place[number] = index if origin == "input" else len(self.inputs) + index
        for i, (_, _, result, operands, _) in enumerate(self.instructions):
            if result not in wanted and free:
                place[result] = free.pop()
            else:
                place[result] = base + count
                count += 1
            done = {r for r in operands if last[r] == i and self.origins[r][0] == "temporary"}
            free += [place[r] for r in done if r not in wanted]
            if result not in wanted and result not in last:
                free.append(place[result])
        return place, count
