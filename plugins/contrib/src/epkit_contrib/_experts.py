"""Mixture of experts: which tokens go where, and what an expert computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from epkit.kernels._precision import cast, wide
from epkit.kernels.activation import sigmoid, tanh_cdf

from ._attend import softmax

ACTIVATIONS = ("relu", "relu2", "gelu", "silu", "swiglu", "geglu", "identity")
JITTER = 0.01
"""Of the sparse mixer: an expert within twice this share of the best one's score counts as its equal."""

ATTRIBUTES = {
    "activation_alpha": 1.0,
    "activation_beta": 0.0,
    "activation_type": "relu",
    "k": 1,
    "normalize_routing_weights": 0,
    "swiglu_fusion": 0,
    "swiglu_limit_after_activation": 0,
    "use_sparse_mixer": 0,
}


@dataclass(frozen=True)
class Gate:
    """The activation between the projections of an expert.

    Attributes:
        kind: one of ACTIVATIONS.
        fusion: 1 if gate and linear part come from one projection by turns, 2 if one after the other.
        alpha, beta, limit, after: of swiglu; after: whether the activated gate is limited instead of the gate.
    """

    kind: str
    fusion: int
    alpha: float
    beta: float
    limit: float
    after: int

    def __post_init__(self) -> None:
        if self.kind not in ACTIVATIONS:
            raise ValueError(
                f"attribute activation_type={self.kind!r} is not one of {', '.join(ACTIVATIONS)}"
            )
        if self.fusion not in (0, 1, 2) or (self.kind == "geglu" and not self.fusion):
            raise ValueError(f"attribute swiglu_fusion={self.fusion} does not fit {self.kind}")

    @property
    def parts(self) -> int:
        """How many numbers the first projection gives for each that goes on."""
        return 2 if self.kind in ("swiglu", "geglu") and self.fusion else 1

    def __call__(self, xp: Any, h: Any, linear: Any) -> Any:
        """activation(h), times the linear part where there is one (which is in ``h`` if it was fused)."""
        if self.parts == 2:
            half = h.shape[-1] // 2
            h, linear = (h[:, ::2], h[:, 1::2]) if self.fusion == 1 else (h[:, :half], h[:, half:])
        if self.kind == "swiglu":
            return self._swiglu(xp, h, linear)
        h = self._activated(xp, h)
        return h if linear is None else h * linear

    def _activated(self, xp: Any, h: Any) -> Any:
        if self.kind in ("relu", "relu2"):
            h = xp.where(h > 0, h, 0)
            return h * h if self.kind == "relu2" else h
        if self.kind == "silu":
            return h * sigmoid(xp, h)
        return h if self.kind == "identity" else h * tanh_cdf(xp, h)

    def _swiglu(self, xp: Any, gate: Any, linear: Any) -> Any:
        if linear is None:
            raise ValueError(
                "activation_type='swiglu' with swiglu_fusion=0 needs the input fc3_experts_weights"
            )
        if not self.after:
            gate = xp.minimum(gate, self.limit)
        active = gate * sigmoid(xp, self.alpha * gate)
        if self.after:
            active = xp.minimum(active, self.limit)
        return active * (xp.clip(linear, -self.limit, self.limit) + self.beta)


@dataclass(frozen=True)
class Projection:
    """One matrix product of each expert: x W[e]' + bias[e].

    Attributes:
        weights: gives W[e] as float32, (outputs, inputs).
        bias: (experts, outputs) or None.
    """

    weights: Callable[[int], Any]
    bias: Any

    def __call__(self, xp: Any, e: int, x: Any) -> Any:
        y = x @ self.weights(e).T
        return y if self.bias is None else y + wide(xp, self.bias[e])


def route(xp: Any, logits: Any, k: int, normalised: int, sparse: int, mixing: Any = None) -> tuple[Any, Any]:
    """For each token its k experts, best first, and their weights, both (tokens, k).

    The weights are the experts' probabilities, or what ``mixing`` says of them; if ``normalised``, over their sum.
    """
    if not 1 <= k <= logits.shape[1]:
        raise ValueError(f"attribute k={k} is not between 1 and {logits.shape[1]} experts")
    logits = wide(xp, logits)
    if sparse:
        return sparsely_mixed(xp, logits, k)
    probability = softmax(xp, logits)
    order = xp.flip(xp.argsort(probability, axis=1, stable=True), axis=1)[:, :k]
    weights = xp.take_along_axis(probability if mixing is None else wide(xp, mixing), order, axis=1)
    if normalised:
        total = xp.sum(weights, axis=1, keepdims=True)
        weights = weights / xp.where(total == 0, 1, total)
    return order, weights


def sparsely_mixed(xp: Any, logits: Any, k: int) -> tuple[Any, Any]:
    """The two best experts, each weighted among those nearly as good that are left (arXiv:2409.12136)."""
    if k != 2:
        raise ValueError(f"attribute use_sparse_mixer is for two experts, k=2, not {k}")
    left, experts, weights = logits, [], []
    for _ in range(k):
        best = xp.max(left, axis=1, keepdims=True)
        near = (best - logits) <= 2 * JITTER * xp.maximum(xp.abs(logits), best)
        shares = softmax(xp, xp.where(near, left, -math.inf))
        chosen = xp.argmax(left, axis=1)[:, None]
        experts.append(chosen)
        weights.append(xp.take_along_axis(shares, chosen, axis=1))
        left = xp.where(xp.arange(left.shape[1])[None] == chosen, -math.inf, left)
    return xp.concat(experts, axis=1), xp.concat(weights, axis=1)


def mixture(
    xp: Any,
    x: Any,
    routes: tuple[Any, Any],
    gate: Gate,
    fc1: Projection,
    fc2: Projection,
    fc3: Projection | None,
) -> Any:
    """The weighted sum, for each token (row of the last axis), of what its experts make of it."""
    experts, weights = routes
    rows = xp.reshape(wide(xp, x), (-1, x.shape[-1]))
    y = xp.zeros(rows.shape, dtype=rows.dtype)
    for e in (int(e) for e in xp.unique_values(experts)):
        token, place = xp.nonzero(experts == e)  # experts of one token differ, so no token comes twice
        some = rows[token]
        h = gate(xp, fc1(xp, e, some), None if fc3 is None else fc3(xp, e, some))
        y[token] += weights[token, place][:, None] * fc2(xp, e, h)
    return cast(xp, xp.reshape(y, x.shape), x.dtype)


def check_tokens(x: Any, router: Any, experts: int) -> None:
    """Refuse routing that does not fit tokens and experts."""
    rows = math.prod(x.shape[:-1])
    if x.ndim not in (2, 3) or router.shape != (rows, experts):
        raise ValueError(
            f"inputs input {x.shape} and router_probs {router.shape} should be tokens and ({rows}, {experts})"
        )
