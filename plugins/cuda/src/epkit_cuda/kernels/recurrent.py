"""RNN, GRU and LSTM: by cuDNN where it has the same equations, else one product for the inputs and one kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, kernel
from epkit.kernels.attributes import attribute_values
from epkit.kernels.recurrent import DEFAULTS

from ..cudnn_recurrent import Job
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
    if steps and batch and size and by_library(context, (cell, layer), weights, {**given, **made}, precision):
        return tuple(made.values())
    if batch and size:
        gates = input_gates(context, x, w, (steps * batch, cell.gates * size), precision)
        _recur(context, node, (cell, layer), gates, r, {**given, **made}, (steps, batch, size))
    return tuple(made.values())


def library_mode(cell: Cell, layer: Layer, given: Mapping[str, Tensor | None]) -> str:
    """The library's name of a layer; "" where its equations are others."""
    slots = len(cell.defaults)
    odd = layer.clip or layer.coupled or layer.backward == 1 or given.get("p") is not None
    if (
        odd
        or layer.names[:slots] * layer.directions != layer.names
        or (layer.by_batch and layer.directions > 1)
    ):
        return ""
    if cell is RNN:
        return layer.names[0] if layer.names[0] in ("relu", "tanh") else ""
    named = {id(LSTM): "LSTM", id(GRU_LINEAR): "GRU"}
    return named.get(id(cell), "") if layer.names[:slots] == cell.defaults else ""


def lengths_of(tensor: Tensor | None, steps: int, batch: int) -> tuple[int, ...]:
    """Of the sequences, where the host knows them and the library takes them; else none."""
    if tensor is None:
        return (steps,) * batch
    if tensor.host is None:
        return ()
    tensor.asked = True
    found = tuple(map(int, tensor.host.reshape(-1)))
    return found if all(0 < length <= steps for length in found) else ()


def by_library(
    context: RunContext,
    how: tuple[Cell, Layer],
    weights: tuple[Tensor, Tensor, Tensor],
    optional: Mapping[str, Tensor | None],
    precision: str,
) -> bool:
    """True if the library did the layer."""
    (cell, layer), (x, w, r), stream = how, weights, stream_of(context)
    found, mode = stream.machine.recurrent, library_mode(cell, layer, optional)
    steps, batch = x.shape[1::-1] if layer.by_batch else x.shape[:2]
    lengths = lengths_of(optional.get("lens"), steps, batch)
    if found is None or not mode or not lengths or (x.dtype == np.float32 and precision in ("fp16", "bf16")):
        return False
    size, directions, bias = r.shape[2], layer.directions, optional.get("b")
    job = Job(
        mode, directions, x.dtype.name, precision == "fp32", x.shape[2], size, steps, batch,
        bias is not None, layer.by_batch, lengths,
    )  # fmt: skip
    if stream.capturing and not found.ready(job):
        return False
    address, xp = int(stream.raw.address), stream.machine.xp
    key, held = f"cudnn {mode} {job.strict}", w.packed
    constant = all(item is None or item.packed is not None for item in (w, r, bias))
    packed = held.get(key) if constant and held is not None else None
    if packed is None:
        packed = found.pack(job, w.array, r.array, None if bias is None else bias.array, address)
        if packed is None:
            return False
        if constant and held is not None and not stream.capturing:
            held[key] = packed
    first, last, cells, last_cells = (optional.get(name) for name in ("h0", "yh", "c0", "yc"))
    states = [None if item is None else dense(context, item) for item in (first, last, cells, last_cells)]
    y = optional.get("y")
    straight = y is not None and (directions == 1 or layer.by_batch)
    out = y.array if straight and y is not None else xp.empty((steps, batch, directions * size), x.dtype)
    done = found.run(job, packed, dense(context, x), out, states, address)
    if done and y is not None and not straight:
        y.array[...] = out.reshape(steps, batch, directions, size).transpose(0, 2, 1, 3)
    return done


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
