"""Linear models and support vector machines (``ai.onnx.ml``)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._ml import (
    DOMAIN,
    as_float,
    as_rows,
    class_labels,
    pick,
    prepared_once,
    to_single,
    transform,
    two_scores,
)
from .operator import op


@prepared_once
def _matrix(xp: Any, values: Any, rows: int, dtype: Any, name: str) -> Any:
    """The attribute as an array [rows, n]."""
    if rows < 1 or len(values) % rows:
        raise ValueError(f"{name} has {len(values)} values, which cannot make {rows} rows")
    return xp.asarray(np.asarray(values, dtype=dtype).reshape(rows, -1))


def _affine(xp: Any, x: Any, coefficients: Any, targets: int, intercepts: Any) -> Any:
    """X · coefficientsᵀ + intercepts: [N, targets]."""
    weights = _matrix(xp, coefficients, targets, x.dtype, "coefficients")
    if weights.shape[1] != x.shape[1]:
        raise ValueError(
            f"coefficients has {len(coefficients)} values for {targets} scores of {x.shape[1]} features"
        )
    if len(intercepts) not in (0, targets):
        raise ValueError(f"intercepts has {len(intercepts)} values for {targets} scores")
    with np.errstate(over="ignore", invalid="ignore"):
        scores = xp.matmul(x, xp.permute_dims(weights, (1, 0)))
        return scores + xp.asarray(np.asarray(intercepts, dtype=x.dtype)) if len(intercepts) else scores


@op("LinearRegressor", domain=DOMAIN)
def linear_regressor(
    xp: Any,
    x: Any,
    *,
    coefficients: Any = (),
    intercepts: Any = (),
    post_transform: str = "NONE",
    targets: int = 1,
) -> Any:
    """Y = post_transform(X · coefficientsᵀ + intercepts), [N, targets], float32."""
    scores = _affine(xp, as_float(xp, as_rows(xp, x)), coefficients, targets, intercepts)
    return to_single(xp, transform(xp, scores, post_transform))


@op("LinearClassifier", domain=DOMAIN)
def linear_classifier(
    xp: Any,
    x: Any,
    *,
    classlabels_ints: Any = None,
    classlabels_strings: Any = None,
    coefficients: Any,
    intercepts: Any = (),
    multi_class: int = 0,
    post_transform: str = "NONE",
) -> Any:
    """Y = the label of the greatest score, Z = post_transform(X · coefficientsᵀ + intercepts).

    Two labels with one row of coefficients have one score s: the label is the second where s > 0, and Z is
    (1 - s, s). ``multi_class`` changes nothing.
    """
    labels = class_labels(classlabels_ints, classlabels_strings)
    x = as_float(xp, as_rows(xp, x))
    single = len(labels) == 2 and len(coefficients) == x.shape[1]
    scores = _affine(xp, x, coefficients, 1 if single else len(labels), intercepts)
    if single:
        index = xp.astype(scores[:, 0] > 0, xp.int64)
        scores = two_scores(xp, scores[:, 0], post_transform, complement=True)
    else:
        index = xp.argmax(scores, axis=1)
        scores = transform(xp, scores, post_transform)
    return pick(xp, labels, index), to_single(xp, scores)


def _kernel(xp: Any, x: Any, vectors: Any, kernel_type: str, kernel_params: Any) -> Any:
    """k(x[n], vectors[v]) as [N, V] in float64; a kernel's parameters are γ, c and the degree d.

    LINEAR x·v, POLY (γ x·v + c)ᵈ, RBF exp(-γ |x - v|²), SIGMOID tanh(γ x·v + c).
    """
    if kernel_type not in ("LINEAR", "POLY", "RBF", "SIGMOID"):
        raise ValueError(f"kernel_type must be LINEAR, POLY, RBF or SIGMOID, not {kernel_type!r}")
    if vectors.shape[1] != x.shape[1]:
        raise ValueError(f"the support vectors have {vectors.shape[1]} features, X has {x.shape[1]}")
    if len(kernel_params) not in (0, 3):
        raise ValueError(f"kernel_params must be gamma, coef0 and degree, not {kernel_params}")
    gamma, coef0, degree = kernel_params or (0.0, 0.0, 0.0)
    with np.errstate(all="ignore"):
        dot = xp.matmul(x, xp.permute_dims(vectors, (1, 0)))
        if kernel_type == "LINEAR":
            return dot
        if kernel_type == "POLY":
            return (gamma * dot + coef0) ** degree
        if kernel_type == "SIGMOID":
            return xp.tanh(gamma * dot + coef0)
        squares = xp.sum(x * x, axis=1)[:, None] + xp.sum(vectors * vectors, axis=1)[None, :]
        return xp.exp(-gamma * xp.clip(squares - 2 * dot, 0, None))


@op("SVMRegressor", domain=DOMAIN)
def svm_regressor(
    xp: Any,
    x: Any,
    *,
    coefficients: Any = (),
    kernel_params: Any = (),
    kernel_type: str = "LINEAR",
    n_supports: int = 0,
    one_class: int = 0,
    post_transform: str = "NONE",
    rho: Any = (),
    support_vectors: Any = (),
) -> Any:
    """Y = Σᵥ coefficients[v] k(x, v) + rho, [N, 1]; with ``one_class`` its sign, 1 or -1.

    Without support vectors it is linear in X.
    """
    if len(rho) < 1:
        raise ValueError("rho must have a value")
    x = xp.astype(as_rows(xp, x), xp.float64)
    if n_supports > 0:
        vectors = _matrix(xp, support_vectors, n_supports, np.dtype(np.float64), "support_vectors")
        x = _kernel(xp, x, vectors, kernel_type, kernel_params)
    scores = _affine(xp, x, coefficients, 1, rho[:1])
    if one_class:
        return xp.astype(xp.where(scores > 0, 1.0, -1.0), xp.float32)
    return to_single(xp, transform(xp, scores, post_transform))


@op("SVMClassifier", domain=DOMAIN)
def svm_classifier(
    xp: Any,
    x: Any,
    *,
    classlabels_ints: Any = None,
    classlabels_strings: Any = None,
    coefficients: Any = (),
    kernel_params: Any = (),
    kernel_type: str = "LINEAR",
    post_transform: str = "NONE",
    prob_a: Any = (),
    prob_b: Any = (),
    rho: Any = (),
    support_vectors: Any = (),
    vectors_per_class: Any = (),
) -> Any:
    """Y = the class that wins most pairs of classes, Z = the scores of the pairs, or class probabilities.

    The pair (i, j), i < j, has the score Σᵥ c[v] k(x, v) + rho over the vectors of both classes, and i wins
    where it is positive. With ``prob_a`` and ``prob_b`` the scores give probabilities, [N, classes].
    Without support vectors each class has a linear score, see ``_linear_svm``.
    """
    labels = class_labels(classlabels_ints, classlabels_strings)
    x = xp.astype(as_rows(xp, x), xp.float64)
    if len(prob_a) != len(prob_b):
        raise ValueError(f"prob_a has {len(prob_a)} values, prob_b {len(prob_b)}")
    if len(rho) < 1:
        raise ValueError("rho must have a value")
    if not sum(vectors_per_class):
        index, scores = _linear_svm(xp, x, len(labels), coefficients, rho[0], bool(len(prob_a)))
        return pick(xp, labels, index), to_single(xp, transform(xp, scores, post_transform))

    classes = len(labels)
    pairs = classes * (classes - 1) // 2
    if classes < 2 or len(vectors_per_class) != classes or min(vectors_per_class) < 0:
        raise ValueError(f"vectors_per_class {tuple(vectors_per_class)} does not fit {classes} class labels")
    for name, values in (("rho", rho), ("prob_a", prob_a or rho)):
        if len(values) < pairs:
            raise ValueError(f"{name} has {len(values)} values for {pairs} pairs of classes")
    vectors = _matrix(xp, support_vectors, sum(vectors_per_class), np.dtype(np.float64), "support_vectors")
    kernel = _kernel(xp, x, vectors, kernel_type, kernel_params)
    with np.errstate(over="ignore", invalid="ignore"):
        scores = xp.matmul(kernel, _pair_coefficients(xp, coefficients, vectors_per_class))
        scores = scores + xp.asarray(np.asarray(rho[:pairs], dtype=np.float64))
    index = xp.argmax(_votes(xp, scores, classes), axis=1)
    if len(prob_a):
        a, b = (xp.asarray(np.asarray(p[:pairs], dtype=np.float64)) for p in (prob_a, prob_b))
        with np.errstate(all="ignore"):
            scores = _probabilities(xp, scores * a + b, classes)
        scores = transform(xp, scores, post_transform)
    elif classes == 2:
        scores = two_scores(xp, scores[:, 0], post_transform, complement=post_transform != "NONE")
    else:
        scores = transform(xp, scores, post_transform)
    return pick(xp, labels, index), to_single(xp, scores)


def _linear_svm(
    xp: Any, x: Any, classes: int, coefficients: Any, rho: float, probabilities: bool
) -> tuple[Any, Any]:
    """Scores X · coefficientsᵀ + rho and the class of the greatest.

    Of two classes it is the second as soon as the greatest score is positive (or at least 0.5, if no
    coefficient is negative), unless there are probabilities: as onnxruntime has it.
    """
    scores = _affine(xp, x, coefficients, classes, (rho,) * classes)
    index = xp.argmax(scores, axis=1)
    if classes == 2 and not probabilities:
        greatest = xp.max(scores, axis=1)
        second = greatest >= 0.5 if min(coefficients) >= 0 else greatest > 0
        index = xp.where(second, 1, index)
    return index, scores


@prepared_once
def _pair_coefficients(xp: Any, coefficients: Any, counts: Any) -> Any:
    """[vectors, pairs]: what each support vector counts in each pair of classes.

    The attribute is [classes - 1, vectors]: a vector of class i has its coefficients against the classes
    other than i, in their order.
    """
    classes, ends = len(counts), np.cumsum(counts)
    table = np.asarray(coefficients, dtype=np.float64)
    if table.size < (classes - 1) * ends[-1]:
        raise ValueError(f"coefficients has {table.size} values, not {classes - 1} · {ends[-1]}")
    table = table[: (classes - 1) * ends[-1]].reshape(classes - 1, -1)
    of_class = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
    firsts, seconds = np.triu_indices(classes, 1)
    result = np.zeros((ends[-1], len(firsts)))
    for pair, (i, j) in enumerate(zip(firsts, seconds, strict=True)):
        result[of_class[i], pair] = table[j - 1, of_class[i]]
        result[of_class[j], pair] = table[i, of_class[j]]
    return xp.asarray(result)


def _votes(xp: Any, scores: Any, classes: int) -> Any:
    """How many pairs each class wins: [N, classes]."""
    firsts, seconds = np.triu_indices(classes, 1)
    identity = np.eye(classes)
    wins = xp.astype(scores > 0, xp.float64)
    return xp.matmul(wins, xp.asarray(identity[firsts])) + xp.matmul(1 - wins, xp.asarray(identity[seconds]))


def _probabilities(xp: Any, logits: Any, classes: int) -> Any:
    """Class probabilities from those of the pairs, 1 / (1 + exp(logit)): Wu, Lin and Weng's second method.

    It minimises Σ (r_ji p_i - r_ij p_j)² one p_i after the other, as libsvm does, until the gradient is
    below 0.005 / classes; rows that are done stay as they are.
    """
    pair = xp.clip(1 / (1 + xp.exp(logits)), 1e-7, 1 - 1e-7)
    firsts, seconds = map(xp.asarray, np.triu_indices(classes, 1))
    r = xp.zeros((logits.shape[0], classes, classes), dtype=xp.float64)
    r[:, firsts, seconds] = pair
    r[:, seconds, firsts] = 1 - pair
    q = -r * xp.permute_dims(r, (0, 2, 1))
    diagonal = xp.arange(classes)
    q[:, diagonal, diagonal] = xp.sum(r * r, axis=1)
    p = xp.full((logits.shape[0], classes), 1 / classes, dtype=xp.float64)
    for _ in range(100):
        qp = xp.sum(q * p[:, None, :], axis=2)
        pqp = xp.sum(p * qp, axis=1)
        active = xp.max(xp.abs(qp - pqp[:, None]), axis=1) >= 0.005 / classes
        if not bool(xp.any(active)):
            break
        new = p
        for i in range(classes):
            step = (pqp - qp[:, i]) / q[:, i, i]
            new = xp.where(diagonal == i, new + step[:, None], new) / (1 + step)[:, None]
            pqp = (pqp + step * (step * q[:, i, i] + 2 * qp[:, i])) / (1 + step) ** 2
            qp = (qp + step[:, None] * q[:, i, :]) / (1 + step)[:, None]
        p = xp.where(active[:, None], new, p)
    return p
