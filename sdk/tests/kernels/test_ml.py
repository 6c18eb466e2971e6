"""The operators of ai.onnx.ml other than trees, against onnxruntime and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ml_oracle import agree, epkit

from epkit.kernels._ml import logistic

NAN = float("nan")
TRANSFORMS = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"]


def f32(*values: Any) -> Any:
    return np.array(values, dtype=np.float32)


def text(*values: Any) -> Any:
    return np.array(values, dtype=object)


@pytest.mark.parametrize(
    ("name", "x", "attributes"),
    [
        ("Binarizer", f32([1, 2], [3, -4]), {"threshold": 1.5}),
        ("Scaler", f32([1, 2], [3, 4]), {"offset": [1.0, 0.5], "scale": [2.0, 0.25]}),
        ("Scaler", np.array([[1, 2], [3, 4]]), {"offset": [1.5], "scale": [0.1]}),
        (
            "Imputer",
            f32([1, NAN], [NAN, 4]),
            {"replaced_value_float": NAN, "imputed_value_floats": [7.0, 8.0]},
        ),
        ("Imputer", f32([1, 0], [0, 4]), {"replaced_value_float": 0.0, "imputed_value_floats": [7.0]}),
        ("Imputer", np.array([[1, -1]]), {"replaced_value_int64": -1, "imputed_value_int64s": [2, 3]}),
        ("LabelEncoder", text("a", "b", "z"), {"opset": 1, "classes_strings": ["a", "b", "a"]}),
        ("LabelEncoder", np.array([0, 2, -1, 9]), {"opset": 1, "classes_strings": ["a", "b", "a"]}),
        (
            "LabelEncoder",
            np.array([1, 2, 3]),
            {"opset": 2, "keys_int64s": [1, 1, 2], "values_strings": list("abc")},
        ),
        ("LabelEncoder", text("a", "q"), {"opset": 2, "keys_strings": ["a"], "values_floats": [1.5]}),
        ("LabelEncoder", f32(0.5, -0.0, 3), {"opset": 2, "keys_floats": [0.5, 0.0], "values_int64s": [4, 5]}),
        (
            "LabelEncoder",
            f32([NAN], [1]),
            {"opset": 4, "keys_floats": [1.0, NAN], "values_strings": ["x", "nan"]},
        ),
        ("LabelEncoder", np.array([[[5]]]), {"opset": 4, "keys_int64s": [5], "values_int64s": [6]}),
        ("CategoryMapper", text("a", "b", "z"), {"cats_strings": ["a", "a", "b"], "cats_int64s": [1, 2, 3]}),
        ("CategoryMapper", np.array([1, 2, 9]), {"cats_strings": list("abc"), "cats_int64s": [1, 1, 2]}),
        ("OneHotEncoder", f32([1.7, 2, NAN, 1e30]), {"cats_int64s": [1, 2, 1]}),
        ("OneHotEncoder", text("a", "q"), {"cats_strings": ["a", "b"]}),
        ("OneHotEncoder", np.array([[3], [2]]), {"cats_int64s": [2, 3], "zeros": 0}),
        ("FeatureVectorizer", f32([1, 2, 3], [4, 5, 6]), {"inputdimensions": [2]}),
        ("FeatureVectorizer", f32(1, 2), {"inputdimensions": [4]}),
    ],
)
def test_encoders(name: str, x: Any, attributes: dict[str, Any]) -> None:
    agree(name, x, **attributes)


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int32])
def test_normalizer(norm: str, dtype: Any) -> None:
    x = np.array([[1, -2, 3], [0, 0, 0], [-1, -2, -3]], dtype)
    agree("Normalizer", x, norm=norm)
    agree("Normalizer", x[0], norm=norm)


def test_array_feature_extractor() -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    agree("ArrayFeatureExtractor", x, np.array([[3, 0, 3]]))
    agree("ArrayFeatureExtractor", x[0, 0], np.array([1]))
    agree("ArrayFeatureExtractor", text(["a", "b"]), np.array([1]))


def test_feature_vectorizer_joins_inputs() -> None:
    agree("FeatureVectorizer", np.array([[1, 2], [3, 4]]), np.array([[5], [6]]), inputdimensions=[3, 1])


def test_types_stay() -> None:
    assert epkit("Binarizer", np.array([0, 5], np.int32), threshold=1.5)[0].dtype == np.int32
    keys = {
        "keys_tensor": np.array([1, 1, 3], np.int16),
        "values_tensor": f32(0.5, 1.5, 2.5).astype(np.float64),
    }
    y = epkit("LabelEncoder", np.array([3, 1, 2], np.int16), opset=4, **keys, default_tensor=np.array([9.0]))[
        0
    ]
    assert y.dtype == np.float64
    assert y.tolist() == [2.5, 1.5, 9.0]  # of equal keys the last counts
    x = np.array([[NAN, 1]])
    y = epkit("Imputer", x, replaced_value_float=NAN, imputed_value_floats=[2.0])[0]
    assert (y.dtype, y.tolist()) == (np.float64, [[2.0, 1.0]])


def test_text_tensors_as_attributes() -> None:
    y = epkit("LabelEncoder", np.array([1, 2]), opset=4, keys_int64s=[1], values_tensor=np.array([b"one"]))[0]
    assert (y.dtype, y.tolist()) == (np.dtype(object), ["one", "_Unused"])


@pytest.mark.parametrize(
    ("name", "x", "attributes", "want"),
    [
        ("CastMap", {3: 1.5, 1: 2.5}, {}, f32([2.5, 1.5])),
        (
            "CastMap",
            {3: 1.5, 1: 2.5},
            {"map_form": "SPARSE", "max_map": 5, "cast_to": "TO_INT64"},
            [[0, 2, 0, 1, 0]],
        ),
        ("CastMap", {0: "7", 1: "8"}, {"cast_to": "TO_INT64"}, [[7, 8]]),
        (
            "CastMap",
            {0: 1.5},
            {"cast_to": "TO_STRING", "map_form": "SPARSE", "max_map": 2},
            [["1.500000", "0.f"]],
        ),
        ("DictVectorizer", {"a": 4, "c": 8}, {"string_vocabulary": ["a", "c", "b", "z"]}, [[4, 8, 0, 0]]),
        ("DictVectorizer", {1: 0.5, 9: 3.0}, {"int64_vocabulary": [2, 1]}, f32([0, 0.5])),
        ("DictVectorizer", {1: np.float64(0.1)}, {"int64_vocabulary": [1]}, np.array([[0.1]])),
        ("DictVectorizer", {1: "x"}, {"int64_vocabulary": [1, 2]}, text(["x", ""])),
    ],
)
def test_maps(name: str, x: Any, attributes: dict[str, Any], want: Any) -> None:
    y, want = epkit(name, x, **attributes)[0], np.asarray(want)
    want = want.astype(object) if want.dtype.kind == "U" else want
    assert (y.dtype, y.tolist()) == (want.dtype, want.tolist())


def test_zip_map() -> None:
    assert epkit("ZipMap", f32([0.5, 0.25]), classlabels_strings=["a", "b"]) == ([{"a": 0.5, "b": 0.25}],)
    assert epkit("ZipMap", f32(0.5), classlabels_int64s=[3]) == ([{3: 0.5}],)
    assert epkit("ZipMap", np.zeros((0, 1), np.float32), classlabels_int64s=[3]) == ([],)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("targets", [1, 3])
def test_linear_regressor(targets: int, transform: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0.1, 0.3, (5, 4)).astype(np.float32)
    w = rng.uniform(0.2, 0.4, 4 * targets).tolist()
    keywords = {"coefficients": w, "targets": targets, "post_transform": transform, "atol": 1e-4}
    agree("LinearRegressor", x, **keywords)
    agree("LinearRegressor", x[0], **keywords, intercepts=[0.1] * targets)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("rows", "labels"), [(1, ["no", "yes"]), (2, [5, 7]), (3, ["a", "b", "c"])])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_linear_classifier(rows: int, labels: Any, transform: str, dtype: Any) -> None:
    if rows == 1 and transform == "PROBIT":
        transform = "NONE"  # onnxruntime leaves the second score undefined
    rng = np.random.default_rng(1)
    x = (rng.uniform(-3, 3, (6, 4)) if transform != "PROBIT" else rng.integers(1, 2, (6, 4))).astype(dtype)
    key = "classlabels_strings" if isinstance(labels[0], str) else "classlabels_ints"
    agree(
        "LinearClassifier", x, outputs=2, atol=1e-4, coefficients=rng.uniform(0.05, 0.2, 4 * rows).tolist(),
        intercepts=[0.05] * rows, post_transform=transform, **{key: labels},
    )  # fmt: skip


def test_linear_classifier_without_intercepts() -> None:
    y, z = epkit("LinearClassifier", f32([1, 2]), coefficients=[1.0, 0.0, 0.0, 1.0], classlabels_ints=[3, 9])
    assert (y.tolist(), z.tolist()) == ([9], [[1, 2]])


def support_vectors(seed: int, counts: list[int], features: int = 3) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    classes, total = len(counts), sum(counts)
    pairs = classes * (classes - 1) // 2
    return {
        "support_vectors": rng.standard_normal(total * features).tolist(),
        "coefficients": rng.standard_normal((classes - 1) * total).tolist(),
        "rho": rng.standard_normal(pairs).tolist(),
        "vectors_per_class": counts,
    }


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
@pytest.mark.parametrize("counts", [[3, 2], [2, 4, 3], [1, 2, 3, 2]])
@pytest.mark.parametrize("probabilities", [False, True])
def test_svm_classifier(kernel: str, counts: list[int], probabilities: bool) -> None:
    given = support_vectors(2, counts) | {"kernel_type": kernel, "kernel_params": [0.3, 0.5, 3.0]}
    if probabilities:
        given |= {"prob_a": [-1.5] * len(given["rho"]), "prob_b": [0.1] * len(given["rho"])}
    x = np.random.default_rng(3).standard_normal((20, 3)).astype(np.float32)
    agree("SVMClassifier", x, outputs=2, **given, classlabels_ints=[5, 3, 8, 2][: len(counts)], atol=1e-4)


@pytest.mark.parametrize("transform", ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"])
@pytest.mark.parametrize("counts", [[3, 2], [2, 4, 3]])
def test_svm_classifier_transforms(transform: str, counts: list[int]) -> None:
    given = support_vectors(4, counts) | {"kernel_params": [0.0, 0.0, 0.0], "post_transform": transform}
    x = np.random.default_rng(5).standard_normal((9, 3))
    agree("SVMClassifier", x, outputs=2, **given, classlabels_strings=list("abc")[: len(counts)], atol=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_linear_svm_classifier(classes: int, low: float) -> None:
    rng = np.random.default_rng(6)
    w = rng.uniform(low, 1, 3 * classes).tolist()
    x = rng.standard_normal((20, 3)).astype(np.float32)
    keywords = {"coefficients": w, "rho": [0.25], "kernel_params": [0.0] * 3}
    agree("SVMClassifier", x, outputs=2, classlabels_ints=list(range(classes)), **keywords)


@pytest.mark.parametrize("kernel", ["LINEAR", "POLY", "RBF", "SIGMOID"])
@pytest.mark.parametrize("one_class", [0, 1])
@pytest.mark.parametrize("supports", [0, 6])
def test_svm_regressor(kernel: str, one_class: int, supports: int) -> None:
    rng = np.random.default_rng(7)
    keywords = {
        "kernel_type": kernel if supports else "LINEAR", "kernel_params": [0.3, 0.5, 2.0],
        "n_supports": supports,
        "coefficients": rng.standard_normal(supports or 3).tolist(), "rho": [0.1], "one_class": one_class,
        "support_vectors": rng.standard_normal(3 * supports).tolist(),
    }  # fmt: skip
    agree("SVMRegressor", rng.standard_normal((9, 3)).astype(np.float32), **keywords, atol=1e-5)


def test_logistic_keeps_small_probabilities() -> None:
    got = logistic(np, np.array([-200.0, -1000.0, 1000.0]))
    np.testing.assert_allclose(got, [np.exp(-200.0), 0, 1], rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "x", "attributes", "message"),
    [
        ("Scaler", f32([1, 2, 3]), {"scale": [1.0, 2.0]}, "scale has 2 values"),
        ("Normalizer", f32([1]), {"norm": "L3"}, "'L3'"),
        ("Normalizer", np.zeros((1, 1, 1)), {}, r"\[N, F\]"),
        ("Imputer", f32([1]), {"imputed_value_int64s": [1]}, "needs imputed_value_floats"),
        (
            "Imputer",
            np.array([1], np.int32),
            {"imputed_value_int64s": [1 << 40]},
            "do not all fit into int32",
        ),
        ("Imputer", f32([1, 2, 3]), {"imputed_value_floats": [1.0, 2.0]}, "2 imputed values"),
        ("FeatureVectorizer", f32([1]), {"inputdimensions": [1, 2]}, "2 sizes for 1 inputs"),
        ("LabelEncoder", np.array([1]), {"keys_int64s": [1], "values_strings": []}, "1 keys for 0 values"),
        ("LabelEncoder", np.array([1]), {"values_int64s": [1]}, "keys_"),
        ("OneHotEncoder", np.array([4]), {"cats_int64s": [1], "zeros": 0}, "has 4"),
        ("OneHotEncoder", np.array([4]), {"cats_strings": ["a"]}, "needs cats_int64s"),
        ("CastMap", {5: 1.0}, {"map_form": "SPARSE", "max_map": 5}, "not all in"),
        ("CastMap", {}, {"map_form": "SPARSE", "max_map": 1 << 40}, "max_map"),
        ("CastMap", {1: 1.0}, {"cast_to": "FLOAT"}, "'FLOAT'"),
        ("ZipMap", f32([1, 2]), {"classlabels_int64s": [1]}, "1 labels"),
        ("ZipMap", f32([1, 2]), {}, "exactly one of"),
        ("LinearRegressor", f32([1, 2]), {"coefficients": [1.0]}, "1 values for 1 scores of 2 features"),
        ("LinearRegressor", f32([1]), {"coefficients": [1.0], "intercepts": [1.0, 2.0]}, "intercepts"),
        ("LinearRegressor", f32([1]), {"coefficients": [1.0], "targets": 0}, "0 rows"),
        ("SVMRegressor", f32([1]), {"coefficients": [1.0]}, "rho"),
        (
            "SVMClassifier",
            f32([1, 2, 3]),
            support_vectors(0, [1, 1]) | {"classlabels_ints": [1]},
            "does not fit 1",
        ),
    ],
)
def test_refusals(name: str, x: Any, attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        epkit(name, x, **attributes)


def test_index_out_of_range() -> None:
    with pytest.raises(ValueError, match=r"index -1, outside \[0, 2\)"):
        epkit("ArrayFeatureExtractor", f32([1, 2]), np.array([0, -1]))


@pytest.mark.parametrize(
    ("name", "attributes"),
    [
        ("Scaler", {"scale": [1e30]}),
        ("Normalizer", {"norm": "L2"}),
        ("OneHotEncoder", {"cats_int64s": [1]}),
        ("FeatureVectorizer", {}),
        ("LinearRegressor", {"coefficients": [1e30, 1.0, -1.0], "post_transform": "PROBIT"}),
        ("LinearClassifier", {"coefficients": [1e30, 1.0, -1.0] * 3, "classlabels_ints": [1, 2, 3]}),
        (
            "SVMClassifier",
            support_vectors(8, [2, 1]) | {"classlabels_ints": [1, 2], "prob_a": [1.0], "prob_b": [0.0]},
        ),
        ("SVMRegressor", {"coefficients": [1e30, 1.0, -1.0], "rho": [0.0]}),
    ],
)
def test_extreme_values_do_not_warn(name: str, attributes: dict[str, Any]) -> None:
    x = np.array([[1e300, NAN, np.inf], [-np.inf, 0.0, 1.0]])
    with np.testing.assert_no_warnings():
        epkit(name, x, **attributes)
