"""RNN, GRU and LSTM: by cuDNN where it has the same equations, else one product for the inputs and one kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, kernel
from epkit.kernels.attributes import attribute_values
from epkit.kernels.recurrent import DEFAULTS

from ..launch import dense, launch, stream_of
from ..memory import Tensor
from ..source import computed, stored
from .products import multiply, rounded
from .recurrent_sources import GRU, GRU_LINEAR, LSTM, OPTIONAL, RNN, Cell, Layer, recur_source

TYPES = {"T": frozenset({"float32", "float64", "float16", "bfloat16"}), "T1": frozenset({"int32"})}
SIDES = {"forward": 0, "reverse": 1, "bidirectional": 2}
MOST_THREADS = 512
CELLS = {"RNN": RNN, "GRU": GRU, "LSTM": LSTM}


def cell_of(node: Any) -> Cell:
    """The cell of an operator."""
    linear = node.op_type == "GRU" and attribute_values(node).get("linear_before_reset", 0)
    return GRU_LINEAR if linear else CELLS[node.op_type]


def layer_of(node: Any) -> Layer | str:
    """The attributes of a node, or why there is no kernel for them."""
    attributes, cell = attribute_values(node), cell_of(node)
    direction, layout = attributes.get("direction", "forward"), attributes.get("layout", 0)
    if direction not in SIDES or layout not in (0, 1):
        return f"direction {direction!r} or layout {layout} is unknown"
    directions, slots = 1 + (direction == "bidirectional"), len(cell.defaults)
    names = tuple(name.lower() for name in attributes.get("activations") or cell.defaults * directions)
    names = names[: slots * directions]
    if len(names) < slots * directions or any(name not in DEFAULTS for name in names):
        return f"activations {list(names)} are not {slots * directions} known ones"
    return Layer(
        names,
        tuple(attributes.get("activation_alpha") or ()),
        tuple(attributes.get("activation_beta") or ()),
        float(attributes.get("clip") or 0.0),
        SIDES[direction],
        directions,
        bool(layout),
        bool(attributes.get("input_forget", 0)),
    )


def known(node: Any) -> bool | str:
    """Attributes that the kernel has, weights of the data's type."""
    found = layer_of(node)
    return found if isinstance(found, str) else True


def check(
    x: Tensor, w: Tensor, r: Tensor, given: Mapping[str, Tensor | None], layer: Layer, gates: int
) -> tuple[int, int, int]:
    """Steps, batch and size; refuses shapes that do not fit together.

    Raises:
        ValueError: naming what does not fit.
    """
    steps, batch = x.shape[1::-1] if layer.by_batch else x.shape[:2]
    directions, size = layer.directions, r.shape[2]
    state = (batch, directions, size) if layer.by_batch else (directions, batch, size)
    wanted = {
        "W": (w, (directions, gates * size, x.shape[2])),
        "R": (r, (directions, gates * size, size)),
        "B": (given.get("b"), (directions, 2 * gates * size)),
        "sequence_lens": (given.get("lens"), (batch,)),
        "initial_h": (given.get("h0"), state),
        "initial_c": (given.get("c0"), state),
        "P": (given.get("p"), (directions, 3 * size)),
    }
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"{name} of shape {tensor.shape} should have shape {shape}")
    return steps, batch, size


def recurrence(context: RunContext, r: Tensor, dtype: Any) -> Any:
    """The weights of the state [directions, size, gates size] in the type that is computed in; made once."""
    key = "recurrence"
    if r.packed is not None and key in r.packed:
        return r.packed[key]
    xp = stream_of(context).machine.xp
    made = xp.ascontiguousarray(xp.astype(r.array, dtype).transpose(0, 2, 1))
    if r.packed is not None and not stream_of(context).capturing:
        r.packed[key] = made
    return made


def sequence(
    context: RunContext,
    node: Any,
    weights: tuple[Tensor, Tensor, Tensor],
    given: Mapping[str, Tensor | None],
    precision: str,
) -> tuple[Tensor | None, ...]:
    """All outputs of a layer: all states, the last one, the last cells; None where a node does not name them."""
    x, w, r = weights
    layer, cell = layer_of(node), cell_of(node)
    assert isinstance(layer, Layer)
    steps, batch, size = check(x, w, r, given, layer, cell.gates)
    directions = layer.directions
    state = (batch, directions, size) if layer.by_batch else (directions, batch, size)
    whole = (batch, steps, directions, size) if layer.by_batch else (steps, directions, batch, size)
    made: dict[str, Tensor | None] = {}
    for index, (name, shape) in enumerate((("y", whole), ("yh", state), ("yc", state))):
        wanted = len(node.outputs) > index and bool(node.outputs[index].name)
        made[name] = context.empty(node.outputs[index], shape, x.dtype) if wanted else None
    if batch and size:
        gates = input_gates(context, x, w, (steps * batch, cell.gates * size), precision)
        _recur(context, node, (cell, layer), gates, r, {**given, **made}, (steps, batch, size))
    return tuple(made.values())


def input_gates(context: RunContext, x: Tensor, w: Tensor, sizes: tuple[int, int], precision: str) -> Any:
    """[directions, rows, gates size]: what the inputs add to the gates, summed in float32 at least."""
    xp = stream_of(context).machine.xp
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    gates = xp.empty((w.shape[0], *sizes), dtype)
    rows = rounded(context, Tensor(dense(context, x)), precision).reshape(-1, x.shape[2])
    columns = rounded(context, w, precision)
    for direction in range(w.shape[0]):
        multiply(context, rows, columns[direction].T, gates[direction], precision)
    return gates


def _recur(
    context: RunContext,
    node: Any,
    how: tuple[Cell, Layer],
    gates: Any,
    r: Tensor,
    optional: Mapping[str, Tensor | None],
    sizes: tuple[int, int, int],
) -> None:
    (cell, layer), (_, batch, size) = how, sizes
    stream = stream_of(context)
    blocks = layer.directions * batch
    memory = stream.machine.xp.empty((blocks, 4, size), gates.dtype)
    t = stored(r.dtype)
    assert np.dtype(gates.dtype).name == {"float": "float32", "double": "float64"}[computed(t)]
    there = frozenset(name for name, tensor in optional.items() if tensor is not None)
    source = recur_source(t, cell, layer, there)
    flags = (layer.directions, layer.backward, layer.by_batch, layer.coupled)
    extras: list[Any] = []
    for name in OPTIONAL:
        tensor = optional.get(name)
        extras.append(
            gates if tensor is None else tensor.array if name.startswith("y") else dense(context, tensor)
        )
    fault = stream.fault(str(node.name))
    numbers = map(np.int32, (*sizes, *flags))
    arguments = [*numbers, gates, recurrence(context, r, gates.dtype), memory, fault, *extras]
    block = min(MOST_THREADS, -(-size // 32) * 32)
    launch(context, source, "recur", blocks, block, arguments)


def recurrent_kernels(precision: str) -> list[Kernel]:
    """The three operators; ``precision`` is that of the product with the inputs."""

    def declare(op_type: str, names: Sequence[str], outputs: int) -> Kernel:
        @kernel(op_type, since=7, types=TYPES, when=known)
        def layer(
            x: Tensor, w: Tensor, r: Tensor, *rest: Tensor | None, context: RunContext, node: Any
        ) -> tuple[Tensor | None, ...]:
            given = dict(zip(names, (*rest, *[None] * len(names)), strict=False))
            return sequence(context, node, (x, w, r), given, precision)[:outputs]

        return layer

    plain = ("b", "lens", "h0")
    return [declare("RNN", plain, 2), declare("GRU", plain, 2), declare("LSTM", (*plain, "c0", "p"), 3)]
