"""The node tests of the standard, with everything that the provider claims on the stand-in."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from cuda_standin import StandIn
from onnx import numpy_helper

import epkit

FAST = [
    "add_bcast",
    "argmax_default_axis_example",
    "attention_4d_causal_fp16_expanded",
    "averagepool_2d_pads",
    "batchnorm_example",
    "cast_FLOAT16_to_FLOAT",
    "clip_example",
    "concat_2d_axis_0",
    "conv_with_strides_padding",
    "cumsum_2d_axis_1",
    "dequantizelinear",
    "div_uint8",
    "einsum_batch_matmul",
    "expand_dim_changed",
    "gather_0",
    "gather_elements_0",
    "gelu_tanh_1",
    "gemm_all_attributes",
    "globalaveragepool",
    "instancenorm_example",
    "layer_normalization_4d_axis2",
    "logsoftmax_axis_1",
    "matmul_3d",
    "max_example",
    "maxpool_2d_default",
    "mod_mixed_sign_int32",
    "nonzero_example",
    "onehot_with_axis",
    "optional_has_element_empty_no_input_tensor_input",
    "constant_pad",
    "qlinearmatmul_2D_uint8_float32",
    "quantizelinear",
    "reduce_l2_do_not_keepdims_example",
    "reduce_mean_keepdims_random",
    "reshape_reordered_last_dims",
    "resize_upsample_sizes_nearest",
    "rms_normalization_3d_axis1_epsilon",
    "scatter_elements_with_axis",
    "slice",
    "softmax_axis_0",
    "split_equal_parts_1d_opset18",
    "squeeze",
    "tile",
    "top_k",
    "transpose_all_permutations_3",
    "tril",
    "where_example",
]
"""A subset across the families; the whole is marked slow."""

NEVER = ("bernoulli", "random")
"""Their results are numbers that nobody can foretell."""


@cache
def cases() -> dict[str, Any]:
    """The cases by name, without ``test_``."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = load_model_tests(kind="node")
    return {case.name.removeprefix("test_"): case for case in found}


def check(case: Any) -> int:
    """Run a case; the number of nodes that the provider ran."""
    feeds, wants = case.data_sets[0]
    names = [value.name for value in case.model.graph.input]
    with epkit.load(case.model, ["cuda", "cpu"], optimise="none") as session:
        found = list(session.run(None, dict(zip(names, map(plain, feeds), strict=False))).values())
        on_gpu = session.placement.counts().get("cuda", 0)
    for have, want in zip(found, map(plain, wants), strict=True):
        if not on_gpu or not isinstance(want, np.ndarray):
            continue
        assert (have.shape, have.dtype) == (want.shape, want.dtype)
        if have.dtype.kind == "V" or have.dtype.name == "bfloat16":
            np.testing.assert_allclose(have.astype("f"), want.astype("f"), rtol=2e-2, atol=1e-2)
        elif have.dtype.kind in "fc":
            np.testing.assert_allclose(have, want, rtol=case.rtol, atol=case.atol)
        else:
            np.testing.assert_array_equal(have, want)
    return on_gpu


def plain(value: Any) -> Any:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


@pytest.mark.parametrize("name", FAST)
def test_chosen_node_tests_pass_on_the_device(gpu: StandIn, name: str) -> None:
    assert check(cases()[name]), f"{name} ran on the fallback"


@pytest.mark.slow
def test_every_node_test_gives_the_right_result(gpu: StandIn) -> None:
    failed, on_gpu = [], 0
    for name, case in cases().items():
        if any(word in name for word in NEVER):
            continue
        try:
            on_gpu += bool(check(case))
        except Exception as error:
            failed.append(f"{name}: {str(error).splitlines()[:1]}")
    assert not failed, "\n".join(failed)
    assert on_gpu > 0.75 * len(cases())
