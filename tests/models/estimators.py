"""Estimators of scikit-learn as skl2onnx writes them: trees, linear and kernel methods, neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import skl2onnx
from sklearn import (
    cluster,
    compose,
    ensemble,
    gaussian_process,
    linear_model,
    naive_bayes,
    neighbors,
    neural_network,
    pipeline,
    preprocessing,
    svm,
)

from .inputs import Feeds

_RNG = np.random.default_rng(0)
_NUMBERS = _RNG.normal(0, 1, (120, 5)).astype(np.float32)
_TARGET = _NUMBERS @ np.array([1, -2, 0.5, 0, 3], np.float32) + np.sin(3 * _NUMBERS[:, 1])
_CLASSES = np.digitize(_TARGET, [-2, 2])
_WORDS = np.array([["red", "small"], ["blue", "large"], ["red", "large"], ["green", "small"]] * 30)

_CLASSIFIERS = {
    "forest": ensemble.RandomForestClassifier(10, max_depth=5, random_state=0),
    "boosting": ensemble.GradientBoostingClassifier(n_estimators=10, random_state=0),
    "logistic": pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression()),
    "svm": svm.SVC(probability=False, decision_function_shape="ovr"),
    "bayes": naive_bayes.GaussianNB(),
    "network": neural_network.MLPClassifier((8,), max_iter=30, random_state=0),
    "neighbours": neighbors.KNeighborsClassifier(3),
}
_REGRESSORS = {
    "tree-regressor": ensemble.ExtraTreesRegressor(10, max_depth=5, random_state=0),
    "ridge": linear_model.Ridge(),
    "svr": svm.SVR(),
    "process": gaussian_process.GaussianProcessRegressor(alpha=0.1),
    "means": cluster.KMeans(3, n_init=1, random_state=0),
}


def _numbers(estimator: Any, target: Any) -> tuple[bytes, list[Feeds]]:
    fitted = estimator.fit(_NUMBERS, target)
    options = {"zipmap": False} if hasattr(fitted, "predict_proba") or isinstance(fitted, svm.SVC) else None
    model = skl2onnx.to_onnx(fitted, _NUMBERS[:1], options=options, target_opset={"": 18, "ai.onnx.ml": 3})
    return model.SerializeToString(), [{"X": _NUMBERS[:1]}, {"X": _NUMBERS[40:90]}]


def words() -> tuple[bytes, list[Feeds]]:
    """Categories and numbers through a column transformer."""
    types = [
        ("words", skl2onnx.common.data_types.StringTensorType([None, 2])),
        ("numbers", skl2onnx.common.data_types.FloatTensorType([None, 5])),
    ]
    one_hot = preprocessing.OneHotEncoder(handle_unknown="ignore")
    columns = compose.ColumnTransformer(
        [("w", one_hot, [0, 1]), ("n", preprocessing.MinMaxScaler(), slice(2, 7))]
    )
    fitted = pipeline.make_pipeline(columns, linear_model.LogisticRegression())
    fitted.fit(np.hstack((_WORDS.astype(object), _NUMBERS.astype(object))), _CLASSES)
    model = skl2onnx.to_onnx(fitted, initial_types=types, options={"zipmap": False})
    feeds = [{"words": _WORDS[:n].astype(object), "numbers": _NUMBERS[:n]} for n in (1, 9)]
    return model.SerializeToString(), feeds


NAMES = (*_CLASSIFIERS, *_REGRESSORS, "words")


def build(name: str) -> tuple[bytes, list[Feeds]]:
    """The model and its inputs."""
    if name == "words":
        return words()
    if name in _CLASSIFIERS:
        return _numbers(_CLASSIFIERS[name], _CLASSES)
    return _numbers(_REGRESSORS[name], _TARGET)
