"""Steps that one kernel, or two, can do for a few rows: what a decoder does between its attentions.

Products of the same rows, the normalisation by the root mean square before them, the product and the residual before
that, and the gate after them, become a group. Whether its kernels fit is seen at each run; else its steps run one after
the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import onnx_ir as ir

from epkit.backend import MemoryStep, RunContext, Subgraph
from epkit.kernels.attributes import attribute_values

from .kernels import gemv
from .kernels.products import ROUNDED
from .launch import dense
from .memory import Tensor

if TYPE_CHECKING:
    from .step import Step

Readers = Mapping[ir.Value, set[ir.Node]]
Values = Mapping[ir.Value, Tensor]


class Shortcut(Protocol):
    """Another way through the steps of a group."""

    def run(self, context: RunContext, given: Values) -> dict[ir.Value, Tensor] | None:
        """What the group makes, from what it reads; None, before anything was launched, where it does not fit."""


@dataclass(frozen=True)
class Group:
    """Steps in a row, and the shortcut through them."""

    steps: tuple[Step, ...]
    shortcut: Shortcut

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """What it computes; the last one names it."""
        return tuple(node for step in self.steps for node in step.nodes)

    @property
    def reads(self) -> tuple[ir.Value, ...]:
        """Values from outside."""
        made = set(self.outputs)
        return tuple(dict.fromkeys(v for step in self.steps for v in step.reads if v not in made))

    @property
    def outputs(self) -> tuple[ir.Value, ...]:
        """All that its steps make."""
        return tuple(value for step in self.steps for value in step.outputs)

    def memory(self) -> MemoryStep:
        """As one step: a shortcut may write any of its results while it reads any input."""
        inner = [step.memory() for step in self.steps]
        writes = tuple(value for step in inner for value in step.writes)
        return MemoryStep(
            self.nodes[-1], self.reads, writes, tuple(value for step in inner for value in step.aliases)
        )


@dataclass(frozen=True)
class Product:
    """A product with a constant matrix, as the kernel of a few rows wants it."""

    step: Step
    rows: ir.Value
    out: ir.Value
    operands: tuple[ir.Value | None, ...]
    packing: Mapping[str, int] | None

    def weight(self, context: RunContext, given: Values) -> gemv.Weight:
        """The matrix on the device."""
        arrays = [None if value is None else given[value].array for value in self.operands]
        if self.packing is None:
            return gemv.Dense(arrays[0], arrays[1])
        codes, scales, points = (
            None if value is None else dense(context, given[value]) for value in self.operands
        )
        sizes = self.packing
        return gemv.Packed(codes, scales, points, sizes["N"], sizes["K"], sizes["block_size"], sizes["bits"])


def product_of(step: Step, subgraph: Subgraph) -> Product | None:
    """The step as a product, or None."""
    if step.kernel is None or step.kernel.op_type not in ("MatMul", "MatMulNBits"):
        return None
    node, rows = step.nodes[0], step.nodes[0].inputs[0]
    if rows is None or any(value is None or subgraph.constant(value) is None for value in node.inputs[1:3]):
        return None
    out = step.outputs[0]
    if node.op_type == "MatMulNBits" and node.domain == "com.microsoft" and step.kernel.when is not None:
        points = node.inputs[3] if len(node.inputs) > 3 else None
        return Product(step, rows, out, (*node.inputs[1:3], points), {"bits": 4, **attribute_values(node)})
    array = subgraph.constant(node.inputs[1]) if node.op_type == "MatMul" and not node.domain else None
    if array is None or array.ndim != 2:
        return None
    bias = step.reads[2] if len(step.reads) > 2 else None
    return Product(step, rows, out, (node.inputs[1], bias), None)


SKIPPING = "SkipSimplifiedLayerNormalization"
NORMS = ("RMSNormalization", "SimplifiedLayerNormalization", SKIPPING)


@dataclass(frozen=True)
class Norm:
    """A normalisation by the root mean square over the last axis, perhaps of a sum."""

    step: Step
    out: ir.Value
    summands: tuple[ir.Value, ...]
    gamma: ir.Value
    epsilon: float
    total: ir.Value | None


def norm_of(step: Step) -> Norm | None:
    """The step as a normalisation, or None."""
    node = step.nodes[0]
    if node.op_type not in NORMS or step.kernel is None or any(value is None for value in node.inputs[:2]):
        return None
    attributes, inputs = attribute_values(node), [value for value in node.inputs if value is not None]
    shape = inputs[0].shape
    last = shape is not None and attributes.get("axis", -1) in (-1, len(shape) - 1)
    if node.op_type != SKIPPING and last and len(inputs) == 2:
        epsilon = float(attributes.get("epsilon", 1e-5))
        return Norm(step, node.outputs[0], (inputs[0],), inputs[1], epsilon, None)
    if node.op_type == SKIPPING and len(inputs) == 3:
        named = len(node.outputs) > 3 and bool(node.outputs[3].name)
        total = node.outputs[3] if named else None
        epsilon = float(attributes.get("epsilon", 9.999999960041972e-13))
        return Norm(step, node.outputs[0], (inputs[0], inputs[1]), inputs[2], epsilon, total)
    return None


def gate_of(step: Step) -> tuple[ir.Value, ir.Value] | None:
    """The two factors of swish(first) second, if the step is that."""
    if step.chain is None or len(step.nodes) not in (2, 3):
        return None
    *inner, last = step.nodes
    names = [node.op_type for node in inner]
    if last.op_type != "Mul" or any(node.domain for node in step.nodes):
        return None
    first = inner[0].inputs[0]
    whole = names == ["Swish"] and attribute_values(inner[0]).get("alpha", 1.0) == 1.0
    halves = names == ["Sigmoid", "Mul"] and set(inner[1].inputs) == {first, inner[0].outputs[0]}
    if not whole and not halves:
        return None
    swish = inner[-1].outputs[0]
    second = [value for value in last.inputs if value is not swish]
    if first is None or len(second) != 1 or second[0] is None:
        return None
    return first, second[0]


@dataclass(frozen=True)
class Products:
    """The shortcut: [the product before, plus the residual,] then all products after, normalised and gated inside.

    Attributes:
        rows: what the products after read, before its normalisation.
        norm: of the rows, or None.
        before: the product that is a summand of the rows.
        residual: the other summand.
        after: products of the rows.
        gated: the result, if it is swish(first) second.
        precision: the provider's option.
    """

    rows: ir.Value
    norm: Norm | None
    before: Product | None
    residual: ir.Value | None
    after: tuple[Product, ...]
    gated: ir.Value | None
    precision: str

    def run(self, context: RunContext, given: Values) -> dict[ir.Value, Tensor] | None:
        first = given[self.rows if self.before is None else self.before.rows]
        if not first.ndim or not 0 < math.prod(first.shape[:-1]) <= gemv.MOST_ROWS:
            return None
        if self.precision in ROUNDED and first.array.dtype == "float32":
            return None
        given, made = dict(given), {}
        start = None
        if self.before is not None:
            start = self._start(context, given, first)
            if start is None:
                return None
            given[self.rows] = made[self.rows] = start[2]
        rows = given[self.rows]
        left = dense(context, rows).reshape(-1, rows.shape[-1])
        weights = [product.weight(context, given) for product in self.after]
        around = self._around(context, given, left)
        if around is None or not gemv.fits(left, weights):
            return None
        if start is not None:
            gemv.multiply(context, start[0], start[1:2], [start[2].array], gemv.Around(residual=start[3]))
        outs = [product.out for product in self.after] if self.gated is None else [self.gated]
        for out, weight in zip(outs, weights, strict=False):
            made[out] = context.empty(out, (*rows.shape[:-1], weight.columns), rows.dtype)
        gemv.multiply(context, left, weights, [made[out].array for out in outs], around)
        return made

    def _start(self, context: RunContext, given: Values, first: Tensor) -> tuple[Any, ...] | None:
        """Rows and weight of the product before, the memory of the sum, and the residual; None if they do not fit."""
        assert self.before is not None and self.residual is not None
        residual, weight = given[self.residual], self.before.weight(context, given)
        left = dense(context, first).reshape(-1, first.shape[-1])
        shape = (*first.shape[:-1], weight.columns)
        if residual.shape != shape or residual.dtype != first.dtype or not gemv.fits(left, [weight]):
            return None
        return left, weight, context.empty(self.rows, shape, first.dtype), dense(context, residual)

    def _around(self, context: RunContext, given: Values, left: Any) -> gemv.Around | None:
        gated = self.gated is not None
        if self.norm is None:
            return gemv.Around(gated=gated)
        gamma = given[self.norm.gamma]
        fits = gamma.shape == left.shape[-1:] and gamma.dtype == left.dtype
        array = dense(context, gamma)
        whole = fits and array.data.ptr % gemv.WIDTH == 0
        return gemv.Around(array, self.norm.epsilon, gated=gated) if whole else None


def group(steps: Sequence[Step], readers: Readers, subgraph: Subgraph, precision: str) -> list[Step | Group]:
    """The steps, those that can run together joined."""
    products = [
        found for step in steps if (found := product_of(step, subgraph)) is not None and not step.activation
    ]
    makers = {product.out: product for product in products}
    norms = {norm.out: norm for step in steps if (norm := norm_of(step)) is not None}
    gates = {pair: step for step in steps if (pair := gate_of(step)) is not None}
    outside = set(subgraph.outputs)
    groups: list[Group] = []
    for rows, after in _by_rows(products).items():
        inner = {product.step.nodes[0] for product in after}
        norm = norms.get(rows)
        if norm is not None and (readers.get(rows) != inner or rows in outside):
            norm = None
        before: Product | None = None
        residual: ir.Value | None = None
        if norm is not None and len(norm.summands) == 2:
            before, residual = _before(norm, makers, readers, outside)
            norm = norm if before is not None else None
        gate = _gate(after, gates, readers, outside) if len(after) == 2 else None
        if norm is None and len(after) == 1:
            continue
        if gate is not None and after[0].out is not gate[0][0]:
            after = after[::-1]
        source = rows if norm is None else norm.summands[0] if norm.total is None else norm.total
        result = None if gate is None else gate[1].outputs[0]
        shortcut = Products(source, norm, before, residual, tuple(after), result, precision)
        parts = [None if before is None else before.step, None if norm is None else norm.step]
        parts += [*(product.step for product in after), None if gate is None else gate[1]]
        groups.append(Group(tuple(step for step in steps if any(step is part for part in parts)), shortcut))
    return placed(steps, groups)


def _by_rows(products: Iterable[Product]) -> dict[ir.Value, list[Product]]:
    """Products of one form by what they multiply; more than one kernel takes are left alone."""
    found: dict[ir.Value, list[Product]] = {}
    for product in products:
        found.setdefault(product.rows, []).append(product)
    return {
        rows: after
        for rows, after in found.items()
        if len(after) <= gemv.MOST_PARTS and len({item.packing is None for item in after}) == 1
    }


def _before(
    norm: Norm, makers: Mapping[ir.Value, Product], readers: Readers, outside: set[ir.Value]
) -> tuple[Product | None, ir.Value | None]:
    """The product that is only a summand of the normalised sum, and the other summand."""
    for value, other in (norm.summands, norm.summands[::-1]):
        alone = readers.get(value) == {norm.step.nodes[0]} and value not in outside and value is not other
        if norm.total is not None and alone and value in makers:
            return makers[value], other
    return None, None


def _gate(
    after: Sequence[Product],
    gates: Mapping[tuple[ir.Value, ir.Value], Step],
    readers: Readers,
    outside: set[ir.Value],
) -> tuple[tuple[ir.Value, ir.Value], Step] | None:
    """The gate that is all that reads both products, and its factors."""
    for first, second in (after, after[::-1]):
        step = gates.get((first.out, second.out))
        if step is None or {first.out, second.out} & outside:
            continue
        plain = all(len(item.step.nodes) == 1 for item in after)
        if plain and readers[first.out] <= set(step.nodes) and readers[second.out] <= set(step.nodes):
            return (first.out, second.out), step
    return None


def placed(steps: Sequence[Step | Group], groups: Sequence[Group]) -> list[Step | Group]:
    """Each group where its last step was; one whose results are read before that is left alone."""
    result: list[Step | Group] = list(steps)
    for found in groups:
        places = [at for at, step in enumerate(result) if any(step is member for member in found.steps)]
        made = set(found.outputs)
        between = [result[at] for at in range(places[0], places[-1]) if at not in places]
        if len(places) != len(found.steps) or any(made & set(step.reads) for step in between):
            continue
        result[places[-1]] = found
        result = [step for at, step in enumerate(result) if at not in places[:-1]]
    return result
