"""Reading: every source and format gives the weights that onnx itself reads, as views."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import pytest
from model_samples import CONTROL_FLOW, SMALL, parse, save_external, with_weights

from epkit.errors import EpkitError, OptionError
from epkit.model.check import check
from epkit.model.read import ReadModel, read

RNG = np.random.default_rng(0)

ARRAYS = {
    "float32": RNG.standard_normal((30, 41)).astype(np.float32),
    "float64": RNG.standard_normal((17, 31)),
    "float16": RNG.standard_normal((50, 50)).astype(np.float16),
    "bfloat16": RNG.standard_normal((50, 50)).astype(ml_dtypes.bfloat16),
    "float8e4m3fn": RNG.standard_normal((70, 50)).astype(ml_dtypes.float8_e4m3fn),
    "int64": RNG.integers(-(2**62), 2**62, (20, 40)),
    "int32": RNG.integers(-9, 9, (20, 50)).astype(np.int32),
    "uint8": RNG.integers(0, 255, (3000,)).astype(np.uint8),
    "bool": RNG.random((3, 1500)) < 0.5,
    "complex64": (RNG.random((20, 30)) + 1j).astype(np.complex64),
    "int4": RNG.integers(-8, 7, (91, 91)).astype(ml_dtypes.int4),
    "uint4": RNG.integers(0, 15, (91, 91)).astype(ml_dtypes.uint4),
    "int2": RNG.integers(-2, 1, (91, 91)).astype(ml_dtypes.int2),
    "uint2": RNG.integers(0, 3, (91, 91)).astype(ml_dtypes.uint2),
    "float4e2m1": RNG.standard_normal((91, 91)).astype(ml_dtypes.float4_e2m1fn),
    "small": np.arange(3, dtype=np.float32),
    "scalar": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 4), dtype=np.float32),
}


def weights(result: ReadModel) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in result.model.graph.initializers.items()}


def assert_weights_equal(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].shape == array.shape, name
        assert found[name].dtype == array.dtype, name
        assert found[name].tobytes() == array.tobytes(), name


def oracle(path: Path) -> dict[str, np.ndarray]:
    return {
        t.name: onnx.numpy_helper.to_array(t, str(path.parent)) for t in onnx.load(path).graph.initializer
    }


@pytest.mark.parametrize("raw", [True, False])
def test_embedded_weights_of_every_type(tmp_path: Path, raw: bool) -> None:
    arrays = ARRAYS if raw else {n: a for n, a in ARRAYS.items() if n not in ("float4e2m1", "int2", "uint2")}
    path = tmp_path / "model.onnx"
    path.write_bytes(with_weights(arrays, raw=raw).SerializeToString())
    assert_weights_equal(weights(read(path)), oracle(path))


def test_external_weights_of_every_type(tmp_path: Path) -> None:
    path = save_external(with_weights(ARRAYS), tmp_path)
    assert_weights_equal(weights(read(path)), ARRAYS)


def test_a_model_packed_by_another_writer_has_float_data_as_view() -> None:
    data = with_weights({"w": ARRAYS["float32"], "d": ARRAYS["float64"]}, raw=False).SerializeToString()
    found = weights(read(data))
    assert_weights_equal(found, {"w": ARRAYS["float32"], "d": ARRAYS["float64"]})
    assert not found["w"].flags.owndata


def test_weights_in_attributes_bodies_and_functions() -> None:
    big = onnx.numpy_helper.from_array(ARRAYS["float32"], "w")
    model = parse(
        """
        <ir_version: 8, opset_import: ["": 17, "f": 1]>
        g (bool c) => (float[A,B] y, float[A,B] z) {
            y = If(c) <
                then_branch = yes () => (float[A,B] a) { a = Constant <value = float {1}> () },
                else_branch = no () => (float[A,B] b) { b = Constant <value = float {1}> () }
            >
            z = f.F()
        }
        <domain: "f", opset_import: ["": 17]> F () => (r) { r = Constant <value = float {1}> () }
        """
    )
    branches = [attribute.g for attribute in model.graph.node[0].attribute]
    for node in (branches[0].node[0], branches[1].node[0], model.functions[0].node[0]):
        node.attribute[0].t.CopyFrom(big)
    result = read(model.SerializeToString()).model
    constants = [
        node.attributes["value"].as_tensor().numpy()
        for owner in (result.graph, *result.functions.values())
        for node in owner.all_nodes()
        if node.op_type == "Constant"
    ]
    assert len(constants) == 3
    for array in constants:
        np.testing.assert_array_equal(array, ARRAYS["float32"])
        assert not array.flags.owndata


def test_weights_are_read_only_views_of_the_source() -> None:
    data = with_weights({"w": ARRAYS["float32"]}).SerializeToString()
    array = weights(read(data))["w"]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    whole = np.frombuffer(data, np.uint8)
    assert np.shares_memory(whole, array)


@pytest.mark.parametrize(
    "suffix", [".onnxtxt", ".onnx.txt", ".textproto", ".pbtxt", ".txtpb", ".json", ".onnx", ".pb"]
)
def test_text_and_binary_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    onnx.save(CONTROL_FLOW, path, format="onnxtxt" if suffix == ".onnx.txt" else None)
    checked = check(read(path))
    assert [node.op_type for node in checked.model.graph] == ["Neg", "If"]
    assert checked.name == path.name


@pytest.mark.parametrize(
    "convert",
    [
        bytes,
        bytearray,
        memoryview,
        onnx.ModelProto.FromString,
        lambda d: ir.from_proto(onnx.ModelProto.FromString(d)),
    ],
)
def test_every_kind_of_source(convert: object) -> None:
    result = check(read(convert(SMALL.SerializeToString())))  # type: ignore[operator]
    assert [node.op_type for node in result.model.graph] == ["Relu"]
    assert result.path is None


def test_a_given_onnx_ir_model_is_cloned() -> None:
    source = ir.from_proto(parse("g (float[2] x) => (float[2] y) { y = Relu(t) t = Neg(x) }"))
    checked = check(read(source))
    checked.model.graph[0].op_type = "Abs"
    assert [node.op_type for node in source.graph] == ["Neg", "Relu"]  # only sorted
    assert source.graph[0].outputs[0].shape is None


def test_other_sources_are_refused() -> None:
    with pytest.raises(OptionError, match="int"):
        read(5)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="contiguous"):
        read(memoryview(bytes(100))[::2])


def test_read_says_what_it_read(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(CONTROL_FLOW, path)
    text = str(read(path))
    assert "m.onnx" in text and "ai.onnx 17" in text and "c" in text
    assert str(check(read(path))).startswith("checked m.onnx")


def maps_of(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))


def open_files() -> list[str]:
    return [
        os.readlink(f"/proc/self/fd/{fd}")
        for fd in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{fd}")
    ]


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs Linux")
def test_a_map_lives_as_long_as_an_array_of_it(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(with_weights({"w": ARRAYS["float32"]}).SerializeToString())
    array = weights(read(path))["w"]
    gc.collect()
    assert maps_of(path) == 1
    np.testing.assert_array_equal(array, ARRAYS["float32"])
    del array
    gc.collect()
    assert maps_of(path) == 0
    assert str(path) not in open_files()


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs Linux")
def test_failure_leaves_nothing_open(tmp_path: Path) -> None:
    path = save_external(with_weights({"w": ARRAYS["float32"], "v": ARRAYS["float64"]}), tmp_path)
    data = tmp_path / "weights.bin"
    os.truncate(data, data.stat().st_size - 8)
    with pytest.raises(EpkitError) as error:
        read(path)
    assert error.value.where.value == "v"
    for file in (path, data):
        assert maps_of(file) == 0
        assert str(file) not in open_files()


def test_weights_are_not_copied(tmp_path: Path) -> None:
    size = 64 << 20
    path = save_external(with_weights({"w": np.zeros(size // 4, np.float32)}), tmp_path)
    before = resident()
    result = check(read(path))
    assert resident() - before < size // 4
    assert result.model.graph.initializers["w"].const_value.nbytes == size


def resident() -> int:
    """Resident memory of this process in bytes; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return 0


def test_an_embedded_model_beyond_two_gigabytes(tmp_path: Path) -> None:
    """Protobuf itself could not parse this file; its weights are cut out first."""
    path, size = tmp_path / "big.onnx", 3 << 30
    small = with_weights({"w": ARRAYS["float32"]})
    tensor, model = small.graph.initializer.pop(), small.SerializeToString()
    tensor.ClearField("raw_data")
    tensor.name, tensor.dims[:] = "big", [size]
    tensor.data_type = onnx.TensorProto.UINT8
    head = tensor.SerializeToString() + b"\x4a" + varint(size)
    graph = b"\x2a" + varint(len(head) + size) + head
    with open(path, "wb") as file:  # sparse; a second "graph" field, which protobuf merges into the first
        small.graph.node[0].input[0] = "big"
        model = small.SerializeToString()
        file.write(model + b"\x3a" + varint(len(graph) + size) + graph)
        file.seek(size - 1, 1)
        file.write(b"\7")
    array = read(path).model.graph.initializers["big"].const_value.numpy()
    assert array.shape == (size,) and array[-1] == 7


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out) + bytes([value])
