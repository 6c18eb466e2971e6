"""Recurrent layers: RNN, GRU, LSTM.

The input's part of all gates is one matrix product for the whole sequence. The two directions of a
bidirectional layer run in the same steps, the second over a reversed sequence. Inside this file arrays are
(steps, directions, batch, features).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ._precision import cast, quiet, wide
from .operator import op

Activation = Callable[[Any, Any], Any]
"""(xp, x) -> the activated x."""

DEFAULTS: dict[str, tuple[float | None, float | None]] = {
    "relu": (None, None),
    "tanh": (None, None),
    "sigmoid": (None, None),
    "softsign": (None, None),
    "softplus": (None, None),
    "affine": (1.0, 0.0),
    "leakyrelu": (0.01, None),
    "thresholdedrelu": (1.0, None),
    "scaledtanh": (1.0, 1.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0, None),
}
"""alpha and beta of each activation where the node gives none; None where it has no such parameter."""


def sigmoid(xp: Any, x: Any) -> Any:
    """1 / (1 + exp(-x)); where exp overflows the result is 0, as it should be."""
    return 1 / (1 + xp.exp(-x))


def activation(name: str, alpha: float, beta: float) -> Activation:
    """The named activation with its parameters bound."""
    table: dict[str, Activation] = {
        "relu": lambda xp, x: xp.maximum(x, xp.zeros_like(x)),
        "tanh": lambda xp, x: xp.tanh(x),
        "sigmoid": sigmoid,
        "softsign": lambda xp, x: x / (1 + xp.abs(x)),
        "softplus": lambda xp, x: xp.logaddexp(x, xp.zeros_like(x)),
        "affine": lambda xp, x: x * alpha + beta,
        "leakyrelu": lambda xp, x: xp.where(x >= 0, x, x * alpha),
        "thresholdedrelu": lambda xp, x: xp.where(x >= alpha, x, xp.zeros_like(x)),
        "scaledtanh": lambda xp, x: xp.tanh(x * beta) * alpha,
        "hardsigmoid": lambda xp, x: xp.clip(x * alpha + beta, 0, 1),
        "elu": lambda xp, x: xp.where(x >= 0, x, xp.expm1(x) * alpha),
    }
    return table[name]


def bind_activations(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float]
) -> list[Activation]:
    """One activation per name; alphas and betas go in order to those that take one.

    A list with a value for every name is read by position.
    """
    keys = [name.lower() for name in names]
    unknown = [name for name in names if name.lower() not in DEFAULTS]
    if unknown:
        raise ValueError(f"attribute activations={list(names)}: {unknown[0]!r} is not an activation function")
    bound = []
    for which, given in enumerate((alphas, betas)):
        by_position = len(given) == len(keys)
        values = iter(given)
        column = []
        for key in keys:
            default = DEFAULTS[key][which]
            value = next(values, default) if by_position or default is not None else None
            column.append(0.0 if value is None else value)
        bound.append(column)
    return [activation(key, a, b) for key, a, b in zip(keys, *bound, strict=True)]


@dataclass(frozen=True)
class Layer:
    """A recurrent layer made ready to run."""

    xp: Any
    gates: Any
    """The input's part of the gates, biases included: (steps, directions, batch, gates * hidden)."""
    recurrence: Any
    """The recurrence weights, transposed: (directions, hidden, gates * hidden)."""
    hidden: int
    lengths: Any
    """The length of each sequence, (batch,), or None if all are full."""
    backward: tuple[bool, ...]
    """Per direction whether it runs from the end."""
    activations: list[list[Activation]]
    """Per activation slot, the functions of the directions (one, if they share it)."""
    clip: float
    dtype: Any
    batch_first: bool

    def activate(self, slot: int, x: Any) -> Any:
        """Clip, then apply the activation of ``slot`` to (directions, batch, features)."""
        if self.clip > 0:
            x = self.xp.clip(x, -self.clip, self.clip)
        functions = self.activations[slot]
        if len(functions) == 1:
            return functions[0](self.xp, x)
        return self.xp.stack([function(self.xp, x[d]) for d, function in enumerate(functions)])

    def initial(self, name: str, state: Any) -> Any:
        """An initial state as (directions, batch, hidden); zeros if there is none."""
        xp, shape = self.xp, (*self.gates.shape[1:3], self.hidden)
        if state is None:
            return xp.zeros(shape, dtype=self.gates.dtype)
        state = xp.permute_dims(state, (1, 0, 2)) if self.batch_first else state
        if tuple(state.shape) != shape:
            raise ValueError(
                f"input {name} should have {shape} directions, batch and features, not {state.shape}"
            )
        return cast(xp, state, self.gates.dtype)

    def run(self, states: tuple[Any, ...], step: Callable[..., tuple[Any, ...]]) -> tuple[Any, ...]:
        """Apply ``step(gates, *states)`` over the sequence: (Y, *last states) as the standard shapes them."""
        xp = self.xp
        outputs = []
        for t in range(self.gates.shape[0]):
            new = step(self.gates[t], *states)
            if self.lengths is not None:
                active = xp.reshape(self.lengths > t, (1, -1, 1))
                new = tuple(xp.where(active, n, s) for n, s in zip(new, states, strict=True))
                outputs.append(xp.where(active, new[0], xp.zeros_like(new[0])))
            else:
                outputs.append(new[0])
            states = new
        y = xp.stack(outputs) if outputs else xp.zeros((0, *states[0].shape), dtype=states[0].dtype)
        y = in_directions(xp, y, self.backward, self.lengths)
        if self.batch_first:
            y, states = xp.permute_dims(y, (2, 0, 1, 3)), tuple(xp.permute_dims(s, (1, 0, 2)) for s in states)
        return tuple(cast(xp, result, self.dtype) for result in (y, *states))


def in_directions(xp: Any, sequence: Any, backward: tuple[bool, ...], lengths: Any) -> Any:
    """Reverse the time of the directions that run backward, each sequence within its length."""
    if not any(backward):
        return sequence
    parts = [
        reverse_time(xp, sequence[:, d : d + 1], lengths) if back else sequence[:, d : d + 1]
        for d, back in enumerate(backward)
    ]
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=1)


def reverse_time(xp: Any, sequence: Any, lengths: Any) -> Any:
    """(steps, directions, batch, features) from the end, the padding after each sequence left in place."""
    if lengths is None:
        return xp.flip(sequence, axis=0)
    t = xp.reshape(xp.arange(sequence.shape[0], dtype=lengths.dtype), (-1, 1))
    index = xp.where(t < lengths, lengths - 1 - t, t)
    return xp.take_along_axis(sequence, xp.astype(index, xp.int64)[:, None, :, None], axis=0)


def check_inputs(
    xp: Any, x: Any, w: Any, r: Any, b: Any, lengths: Any, gates: int, directions: int, batch_axis: int
) -> None:
    """Refuse inputs whose shapes do not fit together, or lengths longer than the sequence."""
    if x.ndim != 3 or r.ndim != 3:
        raise ValueError(f"inputs X of shape {x.shape} and R of shape {r.shape} should have 3 axes")
    batch, steps, hidden = x.shape[batch_axis], x.shape[1 - batch_axis], r.shape[2]
    width = gates * hidden
    expected: dict[str, tuple[Any, tuple[int, ...]]] = {
        "W": (w, (directions, width, x.shape[2])),
        "R": (r, (directions, width, hidden)),
        "B": (b, (directions, 2 * width)),
        "sequence_lens": (lengths, (batch,)),
    }
    for name, (value, shape) in expected.items():
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"input {name} of shape {value.shape} should have shape {shape}")
    if lengths is not None and batch and (xp.min(lengths) < 0 or xp.max(lengths) > steps):
        raise ValueError(f"input sequence_lens={lengths.tolist()} has a length outside 0 to {steps}")


def per_slot(
    names: Sequence[str], slots: int, directions: int, alphas: Sequence[float], betas: Sequence[float]
) -> list[list[Activation]]:
    """For each activation slot the functions of the directions, or one that they share."""
    if len(names) < slots * directions:
        raise ValueError(f"attribute activations={list(names)} should name {slots * directions} functions")
    names = list(names)[: slots * directions]
    bound = bind_activations(names, alphas, betas)
    if names[:slots] * directions == names and not alphas and not betas:
        return [[function] for function in bound[:slots]]
    return [bound[slot::slots] for slot in range(slots)]


def layer(
    xp: Any,
    x: Any,
    w: Any,
    r: Any,
    b: Any,
    sequence_lens: Any,
    *,
    n_gates: int,
    default_activations: Sequence[str],
    direction: str,
    hidden_size: int | None,
    activations: Sequence[str] | None,
    activation_alpha: Sequence[float] | None,
    activation_beta: Sequence[float] | None,
    clip: float | None,
    layout: int,
    separate_recurrent_bias: int = 0,
) -> tuple[Layer, Any]:
    """Check the inputs and compute the input's part of the gates.

    Returns the layer and the recurrence bias (directions, 1, n * hidden) of the last
    ``separate_recurrent_bias`` gates, which is then not part of the gates.
    """
    sides = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    if direction not in sides:
        raise ValueError(f"attribute direction={direction!r} is not one of {', '.join(sides)}")
    if layout not in (0, 1):
        raise ValueError(f"attribute layout={layout} is neither 0 nor 1")
    backward = sides[direction]
    directions, hidden = len(backward), r.shape[-1]
    if hidden_size is not None and hidden_size != hidden:
        raise ValueError(f"attribute hidden_size={hidden_size}, but R of shape {r.shape} has {hidden}")
    check_inputs(xp, x, w, r, b, sequence_lens, n_gates, directions, 0 if layout else 1)

    sequence = wide(xp, xp.permute_dims(x, (1, 0, 2)) if layout else x)
    steps, batch, features = sequence.shape
    width = n_gates * hidden
    rows = xp.reshape(sequence, (steps * batch, features))
    weights = xp.reshape(wide(xp, w), (directions * width, features))
    gates = xp.reshape(rows @ weights.T, (steps, batch, directions, width))
    gates = xp.permute_dims(gates, (0, 2, 1, 3))
    apart = width - separate_recurrent_bias * hidden
    recurrent_bias = xp.zeros((directions, 1, width - apart), dtype=gates.dtype)
    if b is not None:
        bias = wide(xp, b)[:, None, :]
        from_state = xp.concat([bias[..., width : width + apart], xp.zeros_like(recurrent_bias)], axis=-1)
        gates = gates + (bias[..., :width] + from_state)
        recurrent_bias = bias[..., width + apart :]
    made = Layer(
        xp=xp,
        gates=in_directions(xp, gates, backward, sequence_lens),
        recurrence=xp.permute_dims(wide(xp, r), (0, 2, 1)),
        hidden=hidden,
        lengths=sequence_lens,
        backward=backward,
        activations=per_slot(
            activations or tuple(default_activations) * directions,
            len(default_activations),
            directions,
            activation_alpha or (),
            activation_beta or (),
        ),
        clip=clip or 0.0,
        dtype=x.dtype,
        batch_first=bool(layout),
    )
    return made, recurrent_bias


@op("RNN")
@quiet
def rnn(
    xp: Any,
    x: Any,
    w: Any,
    r: Any,
    b: Any = None,
    sequence_lens: Any = None,
    initial_h: Any = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> Any:
    """H[t] = f(X[t] W' + H[t-1] R' + Wb + Rb); outputs all H and the last."""
    cell, _ = layer(
        xp,
        x,
        w,
        r,
        b,
        sequence_lens,
        n_gates=1,
        default_activations=("Tanh",),
        direction=direction,
        hidden_size=hidden_size,
        activations=activations,
        activation_alpha=activation_alpha,
        activation_beta=activation_beta,
        clip=clip,
        layout=layout,
    )

    def step(gates: Any, h: Any) -> tuple[Any, ...]:
        return (cell.activate(0, gates + h @ cell.recurrence),)

    return cell.run((cell.initial("initial_h", initial_h),), step)


@op("GRU")
@quiet
def gru(
    xp: Any,
    x: Any,
    w: Any,
    r: Any,
    b: Any = None,
    sequence_lens: Any = None,
    initial_h: Any = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> Any:
    """H[t] = (1 - z) g(h gate) + z H[t-1] with update gate z and reset gate r; outputs all H and the last.

    The reset applies to H[t-1], or to its product with the weights if ``linear_before_reset``.
    """
    # After the product the reset gate scales the recurrence bias too, so that one stays apart.
    cell, hidden_bias = layer(
        xp,
        x,
        w,
        r,
        b,
        sequence_lens,
        n_gates=3,
        default_activations=("Sigmoid", "Tanh"),
        direction="forward" if direction == "foward" else direction,
        hidden_size=hidden_size,
        activations=activations,
        activation_alpha=activation_alpha,
        activation_beta=activation_beta,
        clip=clip,
        layout=layout,
        separate_recurrent_bias=1 if linear_before_reset else 0,
    )
    two = 2 * cell.hidden
    to_gates, to_hidden = cell.recurrence[..., :two], cell.recurrence[..., two:]

    def step(gates: Any, h: Any) -> tuple[Any, ...]:
        if linear_before_reset:
            product = h @ cell.recurrence
            zr = cell.activate(0, gates[..., :two] + product[..., :two])
            inner = zr[..., cell.hidden :] * (product[..., two:] + hidden_bias)
        else:
            zr = cell.activate(0, gates[..., :two] + h @ to_gates)
            inner = (zr[..., cell.hidden :] * h) @ to_hidden
        z = zr[..., : cell.hidden]
        candidate = cell.activate(1, gates[..., two:] + inner)
        return (candidate + z * (h - candidate),)

    return cell.run((cell.initial("initial_h", initial_h),), step)


@op("LSTM")
@quiet
def lstm(
    xp: Any,
    x: Any,
    w: Any,
    r: Any,
    b: Any = None,
    sequence_lens: Any = None,
    initial_h: Any = None,
    initial_c: Any = None,
    p: Any = None,
    *,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    activations: Sequence[str] | None = None,
    clip: float | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> Any:
    """C[t] = forget C[t-1] + input g(c gate); H[t] = output h(C[t]); outputs all H, the last H and C.

    With ``input_forget`` the forget gate is 1 - input. P holds the peepholes from C to input, output, forget.
    The clip holds for the input of every activation, as the standard says, so for C before h; onnxruntime
    clips what goes into the gates only.
    """
    cell, _ = layer(
        xp,
        x,
        w,
        r,
        b,
        sequence_lens,
        n_gates=4,
        default_activations=("Sigmoid", "Tanh", "Tanh"),
        direction=direction,
        hidden_size=hidden_size,
        activations=activations,
        activation_alpha=activation_alpha,
        activation_beta=activation_beta,
        clip=clip,
        layout=layout,
    )
    n = cell.hidden
    peepholes = None
    if p is not None:
        if tuple(p.shape) != (len(cell.backward), 3 * n):
            raise ValueError(f"input P of shape {p.shape} should have shape {(len(cell.backward), 3 * n)}")
        peep = wide(xp, p)[:, None, :]
        peepholes = peep[..., :n], peep[..., n : 2 * n], peep[..., 2 * n :]

    def step(gates: Any, h: Any, c: Any) -> tuple[Any, ...]:
        gates = gates + h @ cell.recurrence
        if peepholes is None:
            iof = cell.activate(0, gates[..., : 3 * n])
            i, o, f = iof[..., :n], iof[..., n : 2 * n], iof[..., 2 * n :]
        else:
            i = cell.activate(0, gates[..., :n] + peepholes[0] * c)
            f = cell.activate(0, gates[..., 2 * n : 3 * n] + peepholes[2] * c)
        c = (1 - i if input_forget else f) * c + i * cell.activate(1, gates[..., 3 * n :])
        if peepholes is not None:
            o = cell.activate(0, gates[..., n : 2 * n] + peepholes[1] * c)
        return o * cell.activate(2, c), c

    return cell.run((cell.initial("initial_h", initial_h), cell.initial("initial_c", initial_c)), step)
