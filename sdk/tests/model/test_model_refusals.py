"""What is no model, or a damaged one, is refused with the reason and a remedy; nothing else is ever raised."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_samples import CONTROL_FLOW, SMALL, parse, with_weights

from epkit.errors import (
    EpkitError,
    InvalidModelError,
    ModelError,
    NotOnnxError,
    UnknownOperatorError,
    UnsafeModelError,
    UnsupportedOpsetError,
)
from epkit.model.check import check
from epkit.model.limits import Limits
from epkit.model.read import read

FUNCTION = parse(
    """
    <ir_version: 8, opset_import: ["": 17, "f": 1]>
    g (float[2,3] x) => (float[2,3] y) { y = f.F <k = 2> (x) }
    <domain: "f", opset_import: ["": 17]> F <k> (a) => (r) { c = Constant <value_int: int = @k> () d = CastLike(c, a) r = Add(a, d) }
    """
)
WEIGHTS = with_weights({"w": np.arange(600, dtype=np.float32), "s": np.arange(4)})
SEEDS = [model.SerializeToString() for model in (SMALL, CONTROL_FLOW, FUNCTION, WEIGHTS)]


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "PNG"),
        (b"PK\x03\x04" + bytes(50), "zip"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\x1f\x8b\x08\x00" + bytes(9), "gzip"),
        (b"\x24\x00\x00\x00ORTM" + bytes(40), "ORT format"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(40), "TensorFlow Lite"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b'{"irVersion": "8"}', ".json"),
        (b'<ir_version: 8, opset_import: ["": 17]>', ".onnxtxt"),
        (b"ir_version: 8", ".textproto"),
        (b"hello, world", "text"),
        (bytes(range(200, 256)), "damaged"),
        (onnx.helper.make_tensor("t", 1, [1], [1.0]).SerializeToString(), "ONNX model"),
    ],
)
def test_what_it_looks_like(tmp_path: Path, head: bytes, said: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(head)
    for source in (path, head):
        with pytest.raises(NotOnnxError, match=said) as error:
            read(source)
        assert said in str(error.value)
        assert error.value.remedy
        assert error.value.where.stage == "read"


def test_folder_missing_file_and_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    for name, said in (
        ("", "folder"),
        ("missing.onnx", "does not exist"),
        ("pipe.onnx", "pipe"),
        ("a\0b", "cannot be"),
    ):
        with pytest.raises(NotOnnxError, match=said):
            read(f"{tmp_path}/{name}")


def test_a_folder_is_told_its_models_and_text_where_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.onnx").write_text("plain words, of no model")
    with pytest.raises(NotOnnxError) as caught:
        read(tmp_path)
    assert "mine.onnx" in caught.value.remedy
    with pytest.raises(NotOnnxError) as caught:
        read(tmp_path / "mine.onnx")
    assert ".onnxtxt" in caught.value.remedy


def test_a_slip_in_a_standard_operator_is_no_matter_of_packages() -> None:
    for domain, remedy in (("", "correct its name"), ("acme", "install the package")):
        text = f"g (float[N] x) => (float[N] y) {{ y = {domain + '.' if domain else ''}Reluu(x) }}"
        with pytest.raises(UnknownOperatorError) as caught:
            check(read(parse('<ir_version: 8, opset_import: ["": 17, "acme": 1]> ' + text)))
        assert caught.value.remedy.startswith(remedy)


@pytest.mark.parametrize("suffix", [".onnxtxt", ".textproto", ".json"])
@pytest.mark.parametrize("text", [b"nonsense {", b"\xff\xfe", b"{" * 5000])
def test_malformed_text(tmp_path: Path, suffix: str, text: bytes) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(text)
    with pytest.raises(NotOnnxError, match="format"):
        read(path)


@pytest.mark.parametrize("seed", range(len(SEEDS)))
def test_truncated_anywhere(seed: int) -> None:
    data = SEEDS[seed]
    for end in range(0, len(data), 7):
        try:
            check(read(data[:end]))
        except ModelError as error:
            assert error.remedy, error


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(SEEDS),
    st.lists(
        st.tuples(st.integers(0, 10**6), st.integers(0, 3), st.binary(max_size=6)), min_size=1, max_size=6
    ),
)
def test_mutated_bytes_give_a_model_or_an_error_of_ours(
    data: bytes, edits: list[tuple[int, int, bytes]]
) -> None:
    logging.disable(logging.CRITICAL)  # onnx_ir logs each oddity that it meets
    changed = bytearray(data)
    for at, kind, new in edits:
        place = at % (len(changed) + 1)
        changed[place : place + (len(new) if kind < 2 else kind - 2)] = new
    try:
        str(check(read(bytes(changed))))
    except EpkitError as error:
        assert error.what
    finally:
        logging.disable(logging.NOTSET)


def changed(change: str, base: onnx.ModelProto = SMALL) -> onnx.ModelProto:
    model = onnx.ModelProto.FromString(base.SerializeToString())
    exec(change, {"m": model, "g": model.graph, "onnx": onnx, "h": onnx.helper, "np": np})
    return model


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ("m.ir_version = 99", UnsupportedOpsetError, "IR version 99"),
        ("m.ir_version = 2", InvalidModelError, "IR version 2"),
        ("m.ClearField('ir_version')", NotOnnxError, "no IR version"),
        ("m.ClearField('graph')", NotOnnxError, "no graph"),
        ("del m.opset_import[:]", InvalidModelError, "no operator set"),
        ("g.input[0].type.tensor_type.elem_type = 77", InvalidModelError, "77"),
        ("g.initializer.append(h.make_tensor('w', 1, [2], [1, 2])); g.initializer[0].dims[0] = 3", InvalidModelError, "needs 3"),
        ("g.initializer.append(h.make_tensor('w', 1, [2], b'12345678', raw=True)); g.initializer[0].dims[0] = 3", InvalidModelError, "8 bytes"),
        ("g.initializer.append(h.make_tensor('w', 1, [1], [1])); g.initializer[0].dims[0] = -1", InvalidModelError, "negative"),
        ("g.initializer.append(h.make_tensor('w', 1, [1], [1])); g.initializer[0].data_type = 99", InvalidModelError, "type 99"),
        ("g.initializer.append(h.make_tensor('w', 1, [1], [1])); g.initializer[0].data_type = 7", InvalidModelError, "float_data"),
        ("g.initializer.append(h.make_tensor('w', 1, [1], [1])); g.initializer[0].dims.extend([2**62, 2**62])", UnsafeModelError, "tensor_bytes"),
        ("g.initializer.append(h.make_tensor('w', 1, [0], [])); g.initializer[0].dims.extend([2**62, 2**62])", UnsafeModelError, "tensor_bytes"),
        ("g.initializer.append(h.make_tensor('w', 1, [1] * 100, [1]))", UnsafeModelError, "rank"),
        ("g.initializer.append(h.make_tensor('w', 1, [1], [1])); g.initializer[0].segment.begin = 0", InvalidModelError, "segment"),
    ],
)  # fmt: skip
def test_broken_model(change: str, kind: type[EpkitError], said: str) -> None:
    with pytest.raises(kind, match=said) as error:
        read(changed(change))
    assert said in str(error.value) and error.value.remedy


def test_a_weight_is_named_where_its_size_is_wrong() -> None:
    model = changed("g.initializer[0].dims[0] = 601", WEIGHTS)
    with pytest.raises(InvalidModelError, match="2,400 bytes") as error:
        read(model)
    assert error.value.where.value == "w"


def test_a_forged_mark_does_not_alias_another_weight() -> None:
    model = changed(
        "t = g.initializer.add(); t.CopyFrom(g.initializer[0]); t.name = 'copy'; t.ClearField('raw_data'); "
        "t.segment.begin = 0",
        WEIGHTS,
    )
    with pytest.raises(ModelError, match="segment"):
        read(model)


def test_limits() -> None:
    for limits, model in (
        (Limits(nodes=1), CONTROL_FLOW),
        (Limits(nesting=0), CONTROL_FLOW),
        (Limits(tensor_bytes=2399), WEIGHTS),
        (Limits(total_bytes=2431), WEIGHTS),
    ):
        with pytest.raises(UnsafeModelError, match="limit|deep") as error:
            read(model, limits=limits)
        assert "Limits(" in error.value.remedy
    read(WEIGHTS, limits=Limits(tensor_bytes=2400, total_bytes=2432))


@pytest.mark.parametrize("depth", [10, 40, 3000])
def test_deep_nesting(depth: int) -> None:
    """A chain of If within If, written as bytes because protobuf itself refuses the deepest."""
    inner = SMALL.graph.SerializeToString()
    for _ in range(depth):
        inner = field(
            1, field(4, b"If") + field(5, field(1, b"then_branch") + b"\xa0\x01\x05" + field(6, inner))
        )
    with pytest.raises(ModelError):
        check(read(b"\x08\x08" + field(7, inner) + field(8, b"\x10\x11")))


def field(number: int, value: bytes) -> bytes:
    length, out = len(value), bytearray([number << 3 | 2])
    while length > 127:
        out.append(length & 127 | 128)
        length >>= 7
    return bytes(out) + bytes([length]) + value


def test_functions_that_multiply_are_refused() -> None:
    functions = "".join(
        f'<domain: "f", opset_import: ["": 17, "f": 1]> F{i} (a) => (r) {{ b = f.F{i + 1}(a) r = f.F{i + 1}(b) }}\n'
        for i in range(40)
    )
    last = '<domain: "f", opset_import: ["": 17]> F40 (a) => (r) { r = Relu(a) }'
    model = parse(
        '<ir_version: 8, opset_import: ["": 17, "f": 1]> g (float[2] x) => (float[2] y) { y = f.F0(x) }\n'
        + functions
        + last
    )
    with pytest.raises(UnsafeModelError, match="inlined"):
        check(read(model))


@pytest.mark.parametrize(
    "text",
    [
        "g (float[2,3] x) => (float[N] y) { y = Einsum <equation = 'i.j->i'> (x) }",
        "g (float[2,3] x, float[3] w) => (float[2,3] y) { y = LayerNormalization <axis = 4294967295> (x, w) }",
        "<ir_version: 8, opset_import: ['': 18]> g (float[7] x) => (float[2] y, float[5] z) { y, z = Split <num_outputs = 1> (x) }",
        "g (float[2,3] x, int64[2,1] i) => (float[N] y) { y = GatherND <batch_dims = -100> (x, i) }",
    ],
)
def test_what_would_crash_or_hang_inference_is_refused(text: str) -> None:
    with pytest.raises(InvalidModelError, match="attribute|equation"):
        check(read(parse(text.replace("'", '"'))))


@pytest.mark.parametrize("length", [2**40, 2**62])
def test_endless_lengths_do_not_hang(length: int) -> None:
    text = f"g (float[{length}] x, int64[{length}] s) => (float[N] y, float[N] z) {{ y = Mul(x, x) z = Expand(x, s) }}"
    checked = check(read(parse(text)))
    assert checked.model.graph.outputs[0].shape == [length]


@pytest.mark.parametrize(
    "text",
    [
        "g (float[L] x, float[3] q) => (float[N] y) { s = Cast <to = 7> (x) y = Expand(q, s) }",
        "g (float[L] x, float[3] q, bool c) => (float[N] y) { s = If(c) < then_branch = t () => (int64[A] a) { b = Neg(x) a = Cast <to = 7> (b) }, else_branch = e () => (int64[B] d) { d = Cast <to = 7> (x) } > y = Reshape(q, s) }",
        "g (int64 n, float[L] x) => (float[N] y) { s, t = Loop(n, , x) < body = f (int64 i, bool k, float[M] z) => (bool l, float[M] w, float[N] v) { l = Identity(k) w = Neg(z) p = Cast <to = 7> (z) v = ConstantOfShape(p) } > y = Identity(s) }",
        "g (float[L] x, float[3] q) => (float[N] y) { y = f.F(x, q) } <domain: 'f', opset_import: ['': 17]> F (a, b) => (c) { s = Cast <to = 7> (a) c = Expand(b, s) }",
    ],
)
def test_endless_lengths_that_become_shapes_do_not_hang(text: str) -> None:
    text = text.replace("[L]", f"[{2**31}]").replace("'", '"')
    check(read(parse('<ir_version: 8, opset_import: ["": 17, "f": 1]> ' + text)))


def test_a_length_that_is_only_read_stays_known() -> None:
    """A recording of fixed length: its shape is read, but it is no shape."""
    checked_model = check(
        read(parse("g (float[160000] x) => (float[N] y) { s = Shape(x) y = Reshape(x, s) }"))
    ).model
    assert checked_model.graph.outputs[0].shape == [160000]


def test_endless_lengths_in_bodies_do_not_hang() -> None:
    body = "then_branch = t () => (float[4294967295] a) { a = Mul(x, x) }, else_branch = e () => (float[N] a) { a = Neg(x) }"
    check(read(parse(f"g (float[N] x, bool c) => (float[N] y) {{ y = If(c) < {body} > }}")))
