"""ONNX's own backend tests, by ONNX's own unmodified runner."""

from __future__ import annotations

import warnings

from epkit.compat.onnx_backend import EpkitBackend

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the cases themselves overflow while they are generated
    from onnx.backend.test import BackendTest

    suite = BackendTest(EpkitBackend, __name__)

globals().update(suite.test_cases)
