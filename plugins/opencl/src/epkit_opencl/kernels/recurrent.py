"""RNN, GRU and LSTM: the input's part of all gates is one product, then one kernel runs the whole sequence.

A work-group keeps one sequence in one direction: its work-items share out the units of the hidden state, and meet
at a barrier after each step. The state lies in global memory, so that it may be of any size. On a CPU a group is
one work-item, for which barriers cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from epkit.backend import Kernel, RunContext, kernel

from ..launch import c_type, launch
from ..memory import ClStream, Tensor
from .formulas import FLOATS
from .gemm import Side, multiply, pack, temporary
from .gemm_source import WIDTH
from .movement import fresh
from .recurrent_source import GRU, GRU_LINEAR, LSTM, RNN, Cell, Layer, activations_of, source_of

TYPES = {"T": FLOATS, "T1": frozenset({"int32"})}
WORKERS = 32
"""Work-items of a group, at most; on a CPU there is one."""


def sequence(
    context: RunContext,
    node: Any,
    cell: Cell,
    layer: Layer,
    weights: tuple[Tensor, Tensor, Tensor],
    given: Mapping[str, Tensor | None],
) -> tuple[Tensor | None, ...]:
    """All outputs of the layer; ``weights`` are X, W, R, ``given`` the optional inputs by the kernel's names.

    Raises:
        ValueError: if shapes, attributes or lengths do not fit together.
    """
    x, w, r = weights
    if layer.direction not in ("forward", "foward", "reverse", "bidirectional") or layer.layout not in (0, 1):
        raise ValueError(f"direction {layer.direction!r} or layout {layer.layout} is unknown")
    directions, size = layer.directions, r.shape[2]
    steps, batch = x.shape[1::-1] if layer.layout else x.shape[:2]
    width = cell.gates * size
    _check(x, w, r, given, (directions, width, size), (steps, batch))
    state = (batch, directions, size) if layer.layout else (directions, batch, size)
    whole = (batch, steps, directions, size) if layer.layout else (steps, directions, batch, size)
    made: dict[str, Tensor | None] = {}
    for index, (name, shape) in enumerate((("y", whole), ("yh", state), ("yc", state))):
        wanted = len(node.outputs) > index and bool(node.outputs[index].name)
        made[name] = fresh(context, node, shape, x, index) if wanted else None
    if not (batch and size):
        return tuple(made.values())
    gates = temporary(context, "gates", (directions, steps * batch, width), x, keep=False)
    for d in range(directions if steps else 0):
        features = x.shape[2]
        panels = pack(context, Side(w, 1, features, first=d * width * features), features, width, 1)
        sizes = (1, steps * batch, width, features)
        multiply(context, Side(x, features, 1), panels, 1, gates, sizes, first=d * steps * batch * width)
    recurrence = pack(
        context, Side(r, 1, size, size * size), size, size, directions * cell.gates, "recurrence"
    )
    memory = temporary(context, "states", (directions * batch, 4, -(-size // WIDTH) * WIDTH), x, keep=False)
    assert isinstance(context.stream, ClStream)
    is_cpu = context.stream.gpu.is_cpu
    lanes = 16 if is_cpu else 2
    t = c_type(x.dtype)
    optional = {**given, **made}
    source = source_of(cell, t, lanes, activations_of(layer, cell, t), optional)
    workers = 1 if is_cpu else min(WORKERS, context.stream.limits.work_items)
    arguments = [
        steps, batch, size, -(-size // WIDTH), directions, layer.backward, layer.layout, layer.coupled,
        gates, recurrence, memory, *(tensor for tensor in optional.values() if tensor is not None),
    ]  # fmt: skip
    launch(context, source, "recur", [directions * batch * workers], arguments, group=[workers])
    return tuple(made.values())


def _check(
    x: Tensor,
    w: Tensor,
    r: Tensor,
    given: Mapping[str, Tensor | None],
    sizes: tuple[int, int, int],
    run: tuple[int, int],
) -> None:
    (directions, width, size), (steps, batch) = sizes, run
    features, peepholes = x.shape[2], given.get("p")
    bias, lengths = given.get("b"), given.get("lens")
    if w.shape != (directions, width, features) or r.shape != (directions, width, size):
        raise ValueError(f"weights {w.shape} and {r.shape} do not fit {x.shape}")
    if bias is not None and bias.shape != (directions, 2 * width):
        raise ValueError(f"a bias of shape {bias.shape} is not {(directions, 2 * width)}")
    if peepholes is not None and peepholes.shape != (directions, 3 * size):
        raise ValueError(f"peepholes of shape {peepholes.shape} are not {(directions, 3 * size)}")
    if lengths is not None and lengths.shape != (batch,):
        raise ValueError(f"lengths of shape {lengths.shape} are not one for each of {batch} sequences")
    for name in ("h0", "c0"):
        tensor = given.get(name)
        if tensor is not None and tensor.size != directions * batch * size:
            raise ValueError(f"an initial state of shape {tensor.shape} does not fit")
    known = None if lengths is None else lengths.host
    if known is not None and known.size and not (known.min() >= 0 and known.max() <= steps):
        raise ValueError(f"lengths {np.asarray(known).tolist()} are not all between 0 and {steps}")


def layer_of(attributes: Mapping[str, Any]) -> Layer:
    """The attributes; what is missing has the standard's default."""
    return Layer(
        attributes.get("direction", "forward"),
        attributes.get("activations") or (),
        attributes.get("activation_alpha") or (),
        attributes.get("activation_beta") or (),
        attributes.get("clip") or 0.0,
        attributes.get("layout", 0),
        attributes.get("input_forget", 0),
    )


SHARED = frozenset(
    ("activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size", "layout")
)
"""Attributes that all three have."""


def recurrent(name: str, cell: Cell, *, linear: Cell | None = None, own: str = "") -> Kernel:
    """One of the three operators.

    Args:
        name: the operator.
        cell: what a step computes.
        linear: what it computes with ``linear_before_reset``.
        own: an attribute that only this one has.
    """

    @kernel(name, since=7, types=TYPES)
    def layer(
        x: Tensor,
        w: Tensor,
        r: Tensor,
        b: Tensor | None = None,
        lens: Tensor | None = None,
        h0: Tensor | None = None,
        c0: Tensor | None = None,
        p: Tensor | None = None,
        *,
        context: RunContext,
        node: Any,
        **attributes: Any,
    ) -> tuple[Tensor | None, ...]:
        chosen = linear if linear is not None and attributes.get("linear_before_reset") else cell
        given = {"b": b, "lens": lens, "h0": h0, "c0": c0, "p": p}
        found = sequence(context, node, chosen, layer_of(attributes), (x, w, r), given)
        return found[: len(node.outputs)]

    return replace(layer, attributes=SHARED | ({own} if own else set()))


KERNELS = (
    recurrent("RNN", RNN),
    recurrent("GRU", GRU, linear=GRU_LINEAR, own="linear_before_reset"),
    recurrent("LSTM", LSTM, own="input_forget"),
)
