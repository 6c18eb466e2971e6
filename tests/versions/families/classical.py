"""ai.onnx.ml: features, linear models, support vectors, trees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from ..case import Case, cases_for, in_type_for
from ..data import floats, ints, text, whole

ML = "ai.onnx.ml"
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


@cases_for("ArrayFeatureExtractor", domain=ML)
def extractor(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(3, 4), ints(0, 3)])


@cases_for("Binarizer", domain=ML)
def binarizer(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(3, 4)], {"threshold": 0.3})


@cases_for("CastMap", domain=ML)
def cast_map(op: str, version: int) -> Iterator[Case]:
    yield Case([{1: 2.5, 3: 4.0}], {"cast_to": "TO_FLOAT"})
    yield Case([{1: 2.5, 3: 4.0}], {"cast_to": "TO_INT64", "map_form": "SPARSE", "max_map": 5})


@cases_for("CategoryMapper", domain=ML)
def category(op: str, version: int) -> Iterator[Case]:
    table = {"cats_int64s": [3, 5], "cats_strings": ["cat", "dog"]}
    yield Case([text("dog", "cow", "cat")], {**table, "default_int64": -7})
    yield Case([ints(5, 4, 3)], {**table, "default_string": "none"})


@cases_for("DictVectorizer", domain=ML)
def dictionary(op: str, version: int) -> Iterator[Case]:
    yield Case([{"b": 2.0, "a": 1.5}], {"string_vocabulary": ["a", "c", "b"]})
    yield Case([{7: 2.0, 8: 1.5}], {"int64_vocabulary": [8, 9]})


@cases_for("FeatureVectorizer", domain=ML)
def features(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(3, 2), floats(3, 4)], {"inputdimensions": [2, 4]})


@cases_for("Imputer", domain=ML)
def imputer(op: str, version: int) -> Iterator[Case]:
    x = np.array([[1, np.nan], [np.nan, 4]], np.float32)
    yield Case([x], {"imputed_value_floats": [7.0, 8.0], "replaced_value_float": float("nan")})
    yield Case([whole(3, 2, high=3)], {"imputed_value_int64s": [9], "replaced_value_int64": 1})


@cases_for("LabelEncoder", domain=ML)
def encoder(op: str, version: int) -> Iterator[Case]:
    if version < 2:
        yield Case([text("b", "z", "a")], {"classes_strings": ["a", "b"], "default_int64": 9})
        yield Case([ints(1, 5, 0)], {"classes_strings": ["a", "b"], "default_string": "?"})
        return
    strings = {"keys_strings": ["a", "b"], "values_int64s": [5, 6], "default_int64": 9}
    yield Case([text("b", "z", "a")], strings)
    yield Case([ints(1, 5)], {"keys_int64s": [1, 2], "values_floats": [0.5, 1.5], "default_float": 9.0})
    yield Case([np.float32([1.5, 2])], {"keys_floats": [1.5], "values_strings": ["x"], "default_string": "?"})
    if version >= 4:
        for name in ("int64", "int32", "int16", "float64"):
            keys, values = np.array([1, 2], name), np.array([0.5, 1.5], np.float64)
            tensors = {"keys_tensor": keys, "values_tensor": values, "default_tensor": np.array([9.0])}
            yield Case(
                [np.array([2, 5], name)], {k: numpy_helper.from_array(v, k) for k, v in tensors.items()}
            )


@cases_for("LinearClassifier", domain=ML)
def linear_classifier(op: str, version: int) -> Iterator[Case]:
    weights = floats(3, 4).ravel().tolist()
    for transform in TRANSFORMS[:4]:
        given = {"coefficients": weights, "intercepts": [0.1, 0.2, 0.3], "post_transform": transform}
        yield Case([floats(5, 4, low=-1, high=1)], {**given, "classlabels_ints": [3, 1, 2]}, outputs=2)
    two = {"coefficients": weights[:4], "intercepts": [0.1], "classlabels_strings": ["no", "yes"]}
    yield Case([floats(5, 4)], two, outputs=2)


@cases_for("LinearRegressor", domain=ML)
def linear_regressor(op: str, version: int) -> Iterator[Case]:
    given = {"coefficients": floats(8).tolist(), "intercepts": [0.5, -0.5], "targets": 2}
    yield Case([floats(5, 4)], given)


@cases_for("Normalizer", domain=ML)
def normalizer(op: str, version: int) -> Iterator[Case]:
    for norm in ("MAX", "L1", "L2"):
        yield Case([floats(3, 4, low=0.5)], {"norm": norm})


@cases_for("OneHotEncoder", domain=ML)
def one_hot(op: str, version: int) -> Iterator[Case]:
    yield Case([ints(1, 3, 7)], {"cats_int64s": [1, 2, 3]})
    yield Case([text("a", "b")], {"cats_strings": ["b", "a"]})
    yield Case([text("a", "b").reshape(2, 1)], {"cats_strings": ["b", "a"], "zeros": 1})


@cases_for("Scaler", domain=ML)
def scaler(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(3, 2)], {"offset": [0.5, 1.0], "scale": [2.0, 3.0]})
    yield Case([floats(3, 2)], {"offset": [0.5], "scale": [2.0]})


KERNELS = ("LINEAR", "POLY", "RBF", "SIGMOID")


@cases_for("SVMRegressor", domain=ML)
def svm_regressor(op: str, version: int) -> Iterator[Case]:
    vectors = {"support_vectors": floats(12).tolist(), "coefficients": [0.5, -1.0, 0.3], "n_supports": 3}
    for kernel in KERNELS:
        given = {**vectors, "rho": [0.2], "kernel_type": kernel, "kernel_params": [0.4, 0.1, 2.0]}
        yield Case([floats(5, 4, low=-1, high=1)], given)


@cases_for("SVMClassifier", domain=ML)
def svm_classifier(op: str, version: int) -> Iterator[Case]:
    two = {
        "support_vectors": floats(12).tolist(),
        "coefficients": [0.5, -1.0, 0.3],
        "vectors_per_class": [2, 1],
        "rho": [0.2],
        "kernel_params": [0.4, 0.1, 2.0],
    }
    x = floats(5, 4, low=-1, high=1)
    for kernel in KERNELS:
        yield Case([x], {**two, "classlabels_ints": [0, 1], "kernel_type": kernel}, outputs=2)
    likely = {**two, "classlabels_strings": ["a", "b"], "prob_a": [-1.2], "prob_b": [0.1]}
    yield Case([x], likely, outputs=2)


@cases_for("ZipMap", domain=ML)
def zip_map(op: str, version: int) -> Iterator[Case]:
    yield Case([floats(2, 3)], {"classlabels_strings": ["a", "b", "c"]})
    yield Case([floats(2, 3)], {"classlabels_int64s": [7, 8, 9]})


TREES: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0, 0, 0, 1, 1, 1],
    "nodes_nodeids": [0, 1, 2, 3, 4, 0, 1, 2],
    "nodes_featureids": [0, 1, 0, 0, 0, 2, 0, 0],
    "nodes_modes": ["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF", "LEAF", "BRANCH_LEQ", "LEAF", "LEAF"],
    "nodes_values": [0.1, -0.3, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0],
    "nodes_truenodeids": [1, 3, 0, 0, 0, 1, 0, 0],
    "nodes_falsenodeids": [2, 4, 0, 0, 0, 2, 0, 0],
    "nodes_missing_value_tracks_true": [0, 1, 0, 0, 0, 0, 0, 0],
}
LEAVES = {
    "treeids": [0, 0, 0, 0, 0, 0, 1, 1, 1, 1],
    "nodeids": [2, 2, 3, 3, 4, 4, 1, 1, 2, 2],
    "ids": [0, 1, 0, 1, 0, 1, 0, 1, 0, 1],
    "weights": [1.0, -1.0, -2.0, 0.75, 0.5, 4.0, 0.25, -3.0, 3.0, 2.0],
}
"""Two trees over three features, one of depth two and one of depth one; each leaf has a weight for two targets."""


@cases_for("TreeEnsembleRegressor", domain=ML)
def tree_regressor(op: str, version: int) -> Iterator[Case]:
    leaves = {f"target_{name}": values for name, values in LEAVES.items()}
    base = {**TREES, **leaves, "n_targets": 2}
    for aggregate in ("SUM", "AVERAGE", "MIN", "MAX"):
        yield Case([floats(9, 3)], {**base, "aggregate_function": aggregate, "base_values": [0.5, -0.5]})
    one_sided = {**base, "target_ids": [0] * 10, "base_values": [0.5, -0.5]}
    yield Case([floats(9, 3)], one_sided, expect=_second_untouched, retype=False)
    modes = ["BRANCH_GT" if mode != "LEAF" else mode for mode in TREES["nodes_modes"]]
    yield Case([floats(9, 3)], {**base, "nodes_modes": modes})
    if version >= 3:
        yield Case(
            [floats(9, 3).astype(np.float64)],
            _as_tensors(base, "nodes_values", "target_weights"),
            retype=False,
        )


def _second_untouched(x: Any) -> list[Any]:
    """All weights go to the first target; the base values are added to both."""
    nested = np.where(x[:, 1] <= np.float32(-0.3), -2.0 + 0.75, 0.5 + 4.0)
    first = np.where(x[:, 0] <= np.float32(0.1), nested, 1.0 - 1.0)
    second = np.where(x[:, 2] <= np.float32(0.5), 0.25 - 3.0, 3.0 + 2.0)
    return [np.stack([first + second + 0.5, np.full(len(x), -0.5)], axis=1).astype(np.float32)]


@cases_for("TreeEnsembleClassifier", domain=ML)
def tree_classifier(op: str, version: int) -> Iterator[Case]:
    leaves = {f"class_{name}": values for name, values in LEAVES.items()}
    base = {**TREES, **leaves}
    for transform in TRANSFORMS[:3]:
        yield Case(
            [floats(9, 3)], {**base, "classlabels_int64s": [5, 6, 7], "post_transform": transform}, outputs=2
        )
    yield Case([floats(9, 3)], {**base, "classlabels_strings": ["a", "b", "c"]}, outputs=2)
    if version >= 3:
        doubles = _as_tensors({**base, "classlabels_int64s": [5, 6, 7]}, "nodes_values", "class_weights")
        yield Case([floats(9, 3).astype(np.float64)], doubles, outputs=2, retype=False)


def _as_tensors(attributes: dict[str, Any], *names: str) -> dict[str, Any]:
    """The named lists of floats as tensors of doubles."""
    result = dict(attributes)
    for name in names:
        numbers = result.pop(name)
        result[f"{name}_as_tensor"] = helper.make_tensor(name, TensorProto.DOUBLE, (len(numbers),), numbers)
    return result


@cases_for("TreeEnsemble", domain=ML)
def tree_ensemble(op: str, version: int) -> Iterator[Case]:
    yield trees_in("float32")


@in_type_for("TreeEnsemble", domain=ML)
def trees_in_type(op: str, version: int, variable: str, element: str) -> Case:
    return trees_in(element)


def trees_in(element: str) -> Case:
    """x0 <= 1/8 ? (x1 <= -1/4 ? -2 : 1/2) : 1, and x2 in {1, 2} ? 1/4 : 3."""

    def tensor(values: Any, dtype: Any = element) -> Any:
        return numpy_helper.from_array(np.array(values, dtype), "t")

    given = {
        "n_targets": 1,
        "tree_roots": [0, 2],
        "nodes_modes": tensor([0, 0, 6], np.uint8),
        "nodes_featureids": [0, 1, 2],
        "nodes_splits": tensor([0.125, -0.25, 0.0]),
        "nodes_truenodeids": [1, 1, 3],
        "nodes_trueleafs": [0, 1, 1],
        "nodes_falsenodeids": [0, 2, 4],
        "nodes_falseleafs": [1, 1, 1],
        "membership_values": tensor([1.0, 2.0, np.nan]),
        "leaf_targetids": [0, 0, 0, 0, 0],
        "leaf_weights": tensor([1.0, -2.0, 0.5, 0.25, 3.0]),
    }
    x = np.concatenate([floats(9, 2), whole(9, 1, high=4)], axis=1).astype(element)

    def expect(x: Any) -> list[Any]:
        one = np.where(x[:, 0] <= 0.125, np.where(x[:, 1] <= -0.25, -2.0, 0.5), 1.0)
        other = np.where((x[:, 2] == 1) | (x[:, 2] == 2), 0.25, 3.0)
        return [(one + other)[:, None].astype(x.dtype)]

    return Case([x], given, expect=expect, retype=False)
