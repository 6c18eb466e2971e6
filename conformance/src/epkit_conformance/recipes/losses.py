"""Recipes for the losses of classifiers: four classes, weighted, one of them ignored."""

from __future__ import annotations

from typing import Any

import numpy as np

from .trial import Array, Trial, draw, recipe, wide

IGNORED = 2
REDUCTIONS = {12: "none", 13: "mean", 22: "sum"}


def _reduced(lost: Array, weights: Array, reduction: str) -> Array:
    if reduction == "none":
        return lost
    return np.asarray(lost.sum() / weights.sum() if reduction == "mean" else lost.sum())


def _loss(logs: Array, sizes: Array, weights: Array, labels: Array, reduction: str) -> tuple[Array, Array]:
    """The loss, and the magnitude of its terms."""
    each = np.where(labels == IGNORED, 0, weights[labels])
    picked = np.take_along_axis(logs, labels[:, None], 1)[:, 0]
    size = np.take_along_axis(sizes, labels[:, None], 1)[:, 0]
    return _reduced(-picked * each, each, reduction), _reduced(size * np.abs(each), each, reduction)


def _labels(rng: np.random.Generator) -> Any:
    return rng.permutation(np.arange(18) % 4).reshape(3, 6)


@recipe("NegativeLogLikelihoodLoss")
def negative_log_likelihood(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """Another reduction in each version."""
    x, w, labels = draw(rng, (3, 4, 6), dtype), draw(rng, (4,), dtype, 0.5, 2), _labels(rng)
    how = {"reduction": REDUCTIONS[version], "ignore_index": IGNORED}
    want, scale = _loss(wide(x), np.abs(wide(x)), wide(w), labels, REDUCTIONS[version])
    return Trial([x, labels, w], [want], how, scale=scale, terms=18)


@recipe("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(op: str, version: int, dtype: str, rng: np.random.Generator) -> Trial:
    """With the logarithms of the probabilities as a second output."""
    x, w, labels = draw(rng, (3, 4, 6), dtype), draw(rng, (4,), dtype, 0.5, 2), _labels(rng)
    shifted = wide(x) - wide(x).max(axis=1, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    logs = shifted - total
    sizes = np.abs(shifted) + np.maximum(total, 1)  # the sum's relative error is the logarithm's absolute one
    how = {"reduction": REDUCTIONS[version], "ignore_index": IGNORED}
    want, scale = _loss(logs, sizes, wide(w), labels, REDUCTIONS[version])
    return Trial([x, labels, w], [want, logs], how, scale=(scale, sizes), terms=18)
