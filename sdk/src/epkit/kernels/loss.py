"""Losses: NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss."""

from __future__ import annotations

from typing import Any

from ._precision import cast, quiet, wide
from .operator import op


def picked_loss(
    xp: Any, log_p: Any, target: Any, weight: Any, ignore_index: int | None, reduction: str
) -> Any:
    """-log_p[n, target[n, ...], ...] * weight[target], reduced; log_p is (N, C, d...), target (N, d...)."""
    if reduction not in ("none", "sum", "mean"):
        raise ValueError(f"attribute reduction={reduction!r} is not none, sum or mean")
    if log_p.ndim < 2 or tuple(target.shape) != (log_p.shape[0], *log_p.shape[2:]):
        raise ValueError(f"targets of shape {target.shape} do not fit scores of shape {log_p.shape}")
    classes = log_p.shape[1]
    if weight is not None and tuple(weight.shape) != (classes,):
        raise ValueError(
            f"weights of shape {weight.shape} should have one value for each of {classes} classes"
        )
    counts = xp.ones(target.shape, dtype=xp.bool) if ignore_index is None else target != ignore_index
    safe = xp.where(counts, target, xp.zeros_like(target))
    if xp.any((safe < 0) | (safe >= classes)):
        wrong = int(safe[(safe < 0) | (safe >= classes)][0])
        raise ValueError(
            f"target {wrong} is outside the {classes} classes (attribute ignore_index={ignore_index})"
        )
    safe = xp.astype(safe, xp.int64)
    share = cast(xp, counts, log_p.dtype)
    if weight is not None:
        share = share * xp.reshape(
            xp.take(cast(xp, weight, log_p.dtype), xp.reshape(safe, (-1,))), target.shape
        )
    picked = xp.squeeze(xp.take_along_axis(log_p, safe[:, None], axis=1), axis=1)
    loss = xp.where(counts, -picked * share, xp.zeros_like(share))
    if reduction == "none":
        return loss
    total = xp.asarray(xp.sum(loss))
    return total if reduction == "sum" else xp.asarray(total / xp.sum(share))


@op("NegativeLogLikelihoodLoss", since=12)
@quiet
def negative_log_likelihood_loss(
    xp: Any,
    x: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Any:
    """-x[n, target] * weight[target] per sample; their sum, or that over the sum of the weights (mean)."""
    loss = picked_loss(xp, wide(xp, x), target, wide(xp, weight), ignore_index, reduction)
    return cast(xp, loss, x.dtype)


@op("SoftmaxCrossEntropyLoss", since=12)
@quiet
def softmax_cross_entropy_loss(
    xp: Any,
    scores: Any,
    labels: Any,
    weights: Any = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Any:
    """The negative log likelihood of log(softmax(scores)) over axis 1; and that logarithm."""
    if scores.ndim < 2:
        raise ValueError(f"input scores of shape {scores.shape} should have batch and class axes")
    x = wide(xp, scores)
    shifted = x - xp.max(x, axis=1, keepdims=True) if x.size else x
    log_p = shifted - xp.log(xp.sum(xp.exp(shifted), axis=1, keepdims=True))
    loss = picked_loss(xp, log_p, labels, wide(xp, weights), ignore_index, reduction)
    return cast(xp, loss, scores.dtype), cast(xp, log_p, scores.dtype)
