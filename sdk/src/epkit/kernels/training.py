"""One step of the optimisers of domain ai.onnx.preview.training (Gradient is the runtime's, if anyone's)."""

from __future__ import annotations

from typing import Any

from ._pointwise import scalar
from ._precision import quiet
from .operator import op

TRAINING = "ai.onnx.preview.training"


@op("Adagrad", since=1, domain=TRAINING)
@quiet
def adagrad(
    xp: Any,
    rate: Any,
    count: Any,
    *tensors: Any,
    decay_factor: float = 0.0,
    epsilon: float = 9.999999974752427e-07,
    norm_coefficient: float = 0.0,
) -> Any:
    """H' = H + G², X' = X - r G / (sqrt H' + epsilon), with r = R / (1 + T decay) and G regularised."""
    rate = scalar(xp, rate, "R") / (1.0 + float(scalar(xp, count, "T")) * decay_factor)
    new_x, new_h = [], []
    for x, g, h in grouped(tensors, 3):
        g = norm_coefficient * x + g
        new_h.append(h + g * g)
        new_x.append(stepped(xp, x, rate * g / (xp.sqrt(new_h[-1]) + epsilon)))
    return (*new_x, *new_h)


@op("Adam", since=1, domain=TRAINING)
@quiet
def adam(
    xp: Any,
    rate: Any,
    count: Any,
    *tensors: Any,
    alpha: float = 0.8999999761581421,
    beta: float = 0.9990000128746033,
    epsilon: float = 9.999999974752427e-07,
    norm_coefficient: float = 0.0,
    norm_coefficient_post: float = 0.0,
) -> Any:
    """V' = alpha V + (1 - alpha) G, H' = beta H + (1 - beta) G², X' = (1 - post) (X - r V' / (sqrt H' + e)).

    G is regularised, and r = R sqrt(1 - beta^T) / (1 - alpha^T) for T > 0, else R.
    """
    rate, step = scalar(xp, rate, "R"), int(scalar(xp, count, "T"))
    if step > 0:
        if alpha**step == 1:
            raise ValueError(f"attribute alpha={alpha} makes 1 - alpha^T zero")
        if beta**step > 1:
            raise ValueError(f"attribute beta={beta} makes 1 - beta^T negative, which has no root")
        rate = rate * ((1.0 - beta**step) ** 0.5 / (1.0 - alpha**step))
    new_x, new_v, new_h = [], [], []
    for x, g, v, h in grouped(tensors, 4):
        g = norm_coefficient * x + g
        new_v.append(alpha * v + (1.0 - alpha) * g)
        new_h.append(beta * h + (1.0 - beta) * (g * g))
        moved = stepped(xp, x, rate * new_v[-1] / (xp.sqrt(new_h[-1]) + epsilon))
        new_x.append((1.0 - norm_coefficient_post) * moved)
    return (*new_x, *new_v, *new_h)


@op("Momentum", since=1, domain=TRAINING)
@quiet
def momentum(
    xp: Any,
    rate: Any,
    count: Any,
    *tensors: Any,
    alpha: float,
    beta: float,
    mode: str,
    norm_coefficient: float,
) -> Any:
    """V' = alpha V + beta G, X' = X - R V' or ("nesterov") X - R (G + alpha V'); beta is 1 for T = 0."""
    if mode not in ("standard", "nesterov"):
        raise ValueError(f"attribute mode={mode!r} is neither 'standard' nor 'nesterov'")
    rate = scalar(xp, rate, "R")
    if int(scalar(xp, count, "T")) <= 0:
        beta = 1.0
    new_x, new_v = [], []
    for x, g, v in grouped(tensors, 3):
        g = norm_coefficient * x + g
        new_v.append(alpha * v + beta * g)
        new_x.append(stepped(xp, x, rate * (new_v[-1] if mode == "standard" else g + alpha * new_v[-1])))
    return (*new_x, *new_v)


def grouped(tensors: tuple[Any, ...], size: int) -> list[tuple[Any, ...]]:
    """The inputs X1, X2, ..., G1, G2, ... as (X1, G1, ...), (X2, G2, ...)."""
    n = len(tensors) // size
    if not n or n * size != len(tensors):
        raise ValueError(f"there are {len(tensors)} tensors, which is no multiple of {size}")
    return [tuple(tensors[k * n + i] for k in range(size)) for i in range(n)]


def stepped(xp: Any, x: Any, change: Any) -> Any:
    """``x - change`` in the type of x (the learning rate may have a wider one)."""
    return xp.astype(xp.asarray(x - change), x.dtype)
