"""Each rule on a model that a tool has written: it fires there. (That the values stay, test_exports tells.)"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import epkit
import epkit.backend as ep
from epkit.model.check import check
from epkit.model.read import read
from epkit.optimize.layouts import LAYOUTS, Blocks
from epkit.optimize.levels import LEVELS
from epkit.optimize.optimise import Optimised, optimise

from .compare import largest_error
from .fetch import model_path
from .test_exports import FOLDER, archive, peer_of
from .test_models import MODELS

KEPT = {
    "tf2onnx-encoder": (
        *("unsqueeze_last", "matmul_in_batches", "merge_reshapes", "reshape_whole", "add_before_split"),
        *("remove_idle", "merge_transposes", "gelu_tanh", "fast_gelu", "layer_normalization", "expose_keys"),
        *("attention", "attention_of_joined_heads", "multi_head_attention"),
    ),
    "tf2onnx-masked": ("choose_by_product", "transpose_of_product"),
    "tf2onnx-masked-keras2": ("turn_scores",),
    "torch-tracing-weighed": ("rows_as_batches",),
    "torch-tracing-placed": ("rotary_embedding",),
    "torch-tracing-decoder-fixed": ("spell_out_angles",),
    "torch-tracing-trained": (
        *("merge_casts", "requantize", "saturate", "expand_of_codes", "slice_of_codes"),
        *("depthtospace_of_codes",),
    ),
    "tf2onnx-trained": ("spacetodepth_of_codes",),
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
    "slanet-1m": ("matmul_add", "transposed_gemm", "scaled_matmul"),
    "open-nsfw": ("conv_add_activation",),
    "standard_v3_3/model": ("channels_last_GlobalMaxPool",),
    "yolov8n": ("sink_below_split",),
}
"""Models of the catalogue, by the end of their paths."""

MADE = {"bert": ("embed_layer_normalization",), "llama-cache": ("attention_with_past",)}
"""Models that torch exports on the spot."""

ASKED: dict[str, tuple[str, ...]] = {
    "torch-tracing-mobilenet": ("blocks_of_4_FusedConv",),
    "torch-tracing-unet": ("blocks_of_4_Conv", "blocks_of_4_ConvTranspose", "cancel_blocks"),
    "onnxruntime-dynamic": (
        *("blocks_of_4_MaxPool", "blocks_of_4_AveragePool", "blocks_of_4_GlobalAveragePool"),
    ),
    "torch-tracing-decoder": ("rotary_embedding_by_sample",),
}
"""Models kept, for a provider that asks for channels in blocks of four and the standard's names, not for channels last
or the other names."""

OTHER_SIZES = {
    f"{layout.name}_{name}"
    for layout in LAYOUTS
    if isinstance(layout, Blocks)
    for name in ("Conv", "FusedConv", "ConvTranspose", "MaxPool", "AveragePool", "GlobalAveragePool")
    if layout.size != 4
} | {f"{layout.name}_GlobalMaxPool" for layout in LAYOUTS if isinstance(layout, Blocks)}
"""The same rules; the models kept are narrow, and have no largest of all places."""


def optimised(path: Any, providers: Sequence[ep.Provider] | None = None) -> Optimised:
    return optimise(check(read(path), operators=lambda *_: True).model, "all", providers=providers)


def fired(path: Any) -> set[str]:
    return {each.rule for each in optimised(path).applied}


@pytest.mark.parametrize("name", KEPT)
def test_rules_fire_on_exports(name: str) -> None:
    assert not set(KEPT[name]) - fired(FOLDER / f"{name}.onnx")


class Asking(ep.KernelProvider):
    """Asks for what ASKED says, and runs nothing: so all of it is inlined again."""

    name = "asking"
    version = "1"

    def devices(self) -> ep.Devices:
        return ep.Devices(())

    def knows(self, domain: str, op_type: str) -> bool:
        return domain in ("", "epkit.blocks_of_4") or (domain, op_type) == ("com.microsoft", "FusedConv")


@pytest.mark.parametrize("name", ASKED)
def test_rules_fire_on_exports_for_who_asks_and_keep_the_values(name: str) -> None:
    path = FOLDER / f"{name}.onnx"
    found, peer = optimised(path, [Asking()]), peer_of(path)
    assert not set(ASKED[name]) - {each.rule for each in found.applied}
    names = [output.name for output in peer.get_outputs()]
    with epkit.load(found.model, optimise="none") as session:
        for feeds, _ in archive(name):
            wanted = dict(zip(names, peer.run(None, feeds), strict=True))
            assert largest_error(session.run(None, feeds), wanted) <= 1e-3


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
    listed = [rule for models in (KEPT, FETCHED, MADE, ASKED) for rules in models.values() for rule in rules]
    listed += OTHER_SIZES
    assert len(listed) == len(set(listed))
    assert set(listed) == {rule.name for phase in LEVELS["all"] for rule in phase.rules}


def test_the_page_of_rules_is_up_to_date() -> None:
    from .rules_page import PAGE, page

    assert PAGE.read_text("utf-8") == page(), "write it again: python -m tests.models.rules_page"
