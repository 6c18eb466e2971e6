"""Each rule on a model that a tool has written: it fires there. (That the values stay, test_exports tells.)"""

from __future__ import annotations

import pytest

from epkit.model.check import check
from epkit.model.read import read
from epkit.optimize.levels import LEVELS
from epkit.optimize.optimise import optimise

from .fetch import model_path
from .test_exports import FOLDER
from .test_models import MODELS

KEPT = {
    "tf2onnx-encoder": (
        *("unsqueeze_last", "matmul_in_batches", "merge_reshapes", "reshape_whole", "add_before_split"),
        *("remove_idle", "merge_transposes", "gelu_tanh", "fast_gelu", "layer_normalization", "expose_keys"),
        *("attention", "attention_of_joined_heads", "multi_head_attention"),
    ),
    "tf2onnx-masked": ("choose_by_product", "transpose_of_product"),
    "torch-tracing-weighed": ("rows_as_batches",),
    "torch-tracing-encoder": (
        "gelu",
        "bias_gelu",
        "skip_layer_normalization",
        "join_heads",
        "cancel_unsqueeze",
    ),
    "torch-tracing-decoder-interleave": (
        *("merge_unsqueezes", "tile_as_expand", "rms_normalization", "slices_to_split", "dims_of_inputs"),
        *("halve_angles", "lift_angles", "rotary_embedding_of_microsoft", "swish", "swiglu"),
        *("simplified_layer_normalization", "skip_simplified_layer_normalization"),
    ),
    "torch-dynamo-decoder": ("transpose_in_batches", "fix_reshape_target", "drop_allowzero"),
    "torch-dynamo-decoder-23": ("attention_of_shared_heads",),
    "torch-tracing-einstein": ("einsum_as_product", "attention_where"),
    "torch-tracing-unet": (
        "remove_neutral",
        "gelu_of_microsoft",
        "quick_gelu",
        "channels_last_ConvTranspose",
    ),
    "torch-tracing-mobilenet": (
        *("conv_activation", "channels_last_Conv", "channels_last_FusedConv", "sink_below_unary"),
        *("sink_below_binary", "channels_last_GlobalAveragePool"),
    ),
    "paddle2onnx-net": ("fold_affine",),
    "jax2onnx-layer": ("gemm_activation", "remove_reshape"),
    "onnxruntime-4bits-qdq": ("matmul_n_bits",),
    "onnxruntime-4bits": ("scaled_matmul",),
    "onnxruntime-dynamic": (
        *("matmul_integer_to_float", "dynamic_quantize_matmul", "bias_softmax", "channels_last_MaxPool"),
        *("channels_last_AveragePool", "sink_below_concat"),
    ),
    "onnxruntime-qdq": (
        *("qlinear_conv", "qlinear_add", "qlinear_sigmoid", "qlinear_leaky_relu", "qlinear_concat", "q_gemm"),
        *("qlinear_global_average_pool", "flatten_of_codes"),
    ),
    "onnxruntime-qdq-encoder": (
        *("qlinear_matmul", "qlinear_mul", "reshape_of_codes", "transpose_of_codes", "gather_of_codes"),
        *("squeeze_of_codes", "unsqueeze_of_codes"),
    ),
}
"""Models kept in ``exports/``."""

FETCHED = {
    "slanet-1m": ("matmul_add", "transposed_gemm"),
    "open-nsfw": ("conv_add_activation",),
    "standard_v3_3/model": ("channels_last_GlobalMaxPool",),
}
"""Models of the catalogue, by the end of their paths."""

MADE = {"bert": ("embed_layer_normalization",), "llama-cache": ("attention_with_past",)}
"""Models that torch exports on the spot."""

UNSEEN = {
    "merge_casts": "what is cast twice is narrower in between, or one cast of the two goes as needless",
    "requantize": "quantisers put one pair between two operators",
    "saturate": "onnxruntime's quantiser takes such a Relu out itself",
    "spell_out_angles": "exports leave the length open; it is for those of which `--fix` makes the angles known",
    "rotary_embedding": "all samples share the angles in what exporters write",
    "rotary_embedding_by_sample": "where com.microsoft's name is wanted too, that goes first",
    **dict.fromkeys(
        ("expand_of_codes", "slice_of_codes", "depthtospace_of_codes", "spacetodepth_of_codes"),
        "no quantised model here has it between codes in the same steps",
    ),
}
"""Rules that no model here needs, and why; they are proven on random instances of their own formula only."""


def fired(path: object) -> set[str]:
    found = optimise(check(read(path), operators=lambda *_: True).model, "all")  # type: ignore[arg-type]
    return {each.rule for each in found.applied}


@pytest.mark.parametrize("name", KEPT)
def test_rules_fire_on_exports(name: str) -> None:
    assert not set(KEPT[name]) - fired(FOLDER / f"{name}.onnx")


@pytest.mark.models
@pytest.mark.parametrize("name", FETCHED)
def test_rules_fire_on_models_of_packages(name: str) -> None:
    paths = (model_path(*each.values) for each in MODELS)  # type: ignore[attr-defined]
    assert not set(FETCHED[name]) - fired(next(path for path in paths if str(path).endswith(f"{name}.onnx")))


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_rules_fire_on_models_of_transformers(name: str) -> None:
    pytest.importorskip("transformers", reason="an optional environment: see [testenv:slow] in tox.ini")
    import onnx

    from .exported import CASES, export

    assert not set(MADE[name]) - fired(onnx.load_from_string(export(CASES[name], dynamo=True)))


def test_every_rule_is_listed_once() -> None:
    listed = [rule for models in (KEPT, FETCHED, MADE) for rules in models.values() for rule in rules]
    listed += UNSEEN
    assert len(listed) == len(set(listed))
    assert set(listed) == {rule.name for phase in LEVELS["all"] for rule in phase.rules}
