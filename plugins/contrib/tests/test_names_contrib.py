"""Every operator that the package promises is there, with a schema, a rule for shapes and a test."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from contrib_node import inferred, model_of
from onnx.helper import get_attribute_value
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_internals

import epkit
from epkit.backend import CustomOperator
from epkit_contrib import FAMILIES, epkit_operators

PROMISED = """
MatMulNBits GroupQueryAttention RotaryEmbedding SkipSimplifiedLayerNormalization GatherBlockQuantized
MultiHeadAttention QMoE MoE
Attention SkipLayerNormalization EmbedLayerNormalization BiasGelu FastGelu Gelu QuickGelu FusedMatMul
DynamicQuantizeMatMul MatMulIntegerToFloat QLinearAdd QLinearMul QLinearSigmoid QLinearLeakyRelu QLinearSoftmax
QLinearConcat QLinearWhere QLinearAveragePool QLinearGlobalAveragePool QGemm QAttention DynamicQuantizeLSTM
QuantizeLinear DequantizeLinear
FusedConv FusedGemm NhwcMaxPool NhwcConv QLinearConv
GridSample Pad Unique Trilu NGramRepeatBlock Inverse CDist ExpandDims Tokenizer BiasAdd BiasSoftmax BiasSplitGelu
GroupNorm SkipGroupNorm SparseAttention DecoderMaskedMultiHeadAttention LinearAttention GatedDeltaNet
CausalConvWithState MRotaryEmbedding GreedySearch Sampling
"""

DEFAULT_DOMAIN = [
    "SimplifiedLayerNormalization",
    "LayerNormalization",
    "MeanVarianceNormalization",
    "Scale",
    "ImageScaler",
    "Crop",
    "DynamicSlice",
]
"""What files have in the default domain at versions at which the standard does not have it."""

DECLARED = {(item.domain, item.name): item for item in epkit_operators()}
ORACLE = {(s.domain, s.name, s.since_version): s for s in onnxruntime_internals.get_all_operator_schema()}
NARROWER = {"GridSample"}  # onnxruntime's schema names all types, its kernel has float


@pytest.mark.parametrize("name", [*PROMISED.split(), *DEFAULT_DOMAIN])
def test_the_operator_is_declared(name: str) -> None:
    item = DECLARED["" if name in DEFAULT_DOMAIN else "com.microsoft", name]
    assert item.schema is not None
    assert item.schema.has_type_and_shape_inference_function
    assert item.schema.doc.strip()


def default_of(value: onnx.AttributeProto) -> Any:
    return get_attribute_value(value) if value.type else None


def formals(schema: Any) -> list[tuple[str, frozenset[str]]]:
    """Single, optional or variadic, and the types, of each input and output."""
    named = {c.type_param_str: frozenset(c.allowed_type_strs) for c in schema.type_constraints}
    found = []
    for formal in (*schema.inputs, *schema.outputs):
        spelt = getattr(formal, "typeStr", None) or formal.type_str
        found.append((formal.option.name, named.get(spelt, frozenset({spelt}))))
    return found


@pytest.mark.parametrize("item", DECLARED.values(), ids=lambda item: item.name)
def test_the_schema_has_what_onnxruntimes_has(item: CustomOperator) -> None:
    theirs, ours = ORACLE[item.domain, item.name, item.since], item.schema
    assert ours is not None
    assert len(ours.inputs) == len(theirs.inputs)
    for (option, types), (their_option, their_types) in zip(formals(ours), formals(theirs), strict=True):
        assert option == their_option
        assert types >= their_types or item.name in NARROWER
    assert set(ours.attributes) == set(theirs.attributes)
    for name, their_attribute in theirs.attributes.items():
        attribute, default = ours.attributes[name], onnx.AttributeProto()
        default.ParseFromString(their_attribute._default_value or b"")
        assert (attribute.type.name, attribute.required) == (
            their_attribute.type.name,
            their_attribute.required,
        )
        assert default_of(attribute.default_value) == default_of(default)


@pytest.mark.parametrize("item", DECLARED.values(), ids=lambda item: item.name)
def test_the_operator_has_a_test(item: CustomOperator) -> None:
    tests = Path(__file__).parent
    found = [path for path in tests.glob("test_*.py") if path != Path(__file__)]
    assert any(re.search(rf'"{item.name}"', path.read_text(encoding="utf-8")) for path in found)


def test_families_are_the_files_that_declare() -> None:
    """A file with operators that is missing from the list would never be imported."""
    package = Path(epkit_operators.__code__.co_filename).parent
    declaring = {
        path.stem for path in package.glob("*.py") if re.search(r"^@contrib\(", path.read_text(), re.M)
    }
    assert declaring == set(FAMILIES)


def test_the_installed_package_is_found_by_itself() -> None:
    model = model_of("QuickGelu", {"x": np.ones(3, np.float32)})
    with epkit.load(model) as session:
        np.testing.assert_allclose(session(x=np.zeros(3, np.float32))["y0"], 0)
    assert inferred(model) == [(1, [3])]


def test_cases_of_the_standard_are_not_more_for_the_package() -> None:
    """Its schemas of the default domain are registered with onnx, among those of the standard."""
    from epkit_conformance.corpus.generated import cases

    inferred(model_of("QuickGelu", {"x": np.ones(3, np.float32)}))
    assert {1} < {
        s.since_version for s in onnx.defs.get_all_schemas_with_history() if s.name == "LayerNormalization"
    }
    assert {case.version for case in cases() if case.operator == "LayerNormalization"} == {17}
