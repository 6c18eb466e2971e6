"""What a load keeps in memory: weights packed once, and the pages of a file given back where they are packed."""

from __future__ import annotations

import mmap
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import epkit
from epkit_cpu.compile import NativeProgram
from epkit_cpu.native import isas
from epkit_cpu.pages import Scratch, let_go
from epkit_cpu.prepared import Prepared

pytestmark = pytest.mark.skipif(not isas(), reason="the package was built without a compiler")

Array = np.ndarray[Any, Any]


def mapped(path: Path, offset: int) -> tuple[mmap.mmap, Array]:
    """Floats that lie at an offset of a mapped file."""
    numbers = np.arange(1 << 18, dtype=np.float32)
    path.write_bytes(bytes(offset) + numbers.tobytes())
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return mapping, np.frombuffer(mapping, np.float32, numbers.size, offset).reshape(512, 512)


def resident(array: Array) -> int:
    """Kilobytes of the mapping around an array that are in this process's memory."""
    address = array.__array_interface__["data"][0]
    inside = False
    for line in Path("/proc/self/smaps").read_text(encoding="ascii").splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            begin, end = (int(part, 16) for part in first.split("-"))
            inside = begin <= address < end
        elif inside and first == "Rss:":
            return int(line.split()[1])
    raise AssertionError("the array is in no mapping")


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="it is Linux that tells what is resident")
@pytest.mark.parametrize("offset", [0, 3, 4096 + 2])
def test_pages_are_given_back_and_read_again(tmp_path: Path, offset: int) -> None:
    _, array = mapped(tmp_path / "weights", offset)
    total = float(array.sum(dtype=np.float64))
    before = resident(array)
    let_go(array)
    assert before >= array.nbytes // 1024
    assert resident(array) <= 128
    assert float(array.sum(dtype=np.float64)) == total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="it is Linux that tells what is resident")
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_weight_that_was_packed_leaves_no_pages_of_its_file(tmp_path: Path, dtype: type) -> None:
    weight = np.random.default_rng(0).standard_normal((1024, 1024)).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ends = [helper.make_tensor_value_info(name, kind, ["n", 1024]) for name in "xy"]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    with epkit.load(path, ["cpu"]) as session:
        lines = Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines()
        (begin,) = (index for index, line in enumerate(lines) if line.endswith(str(path)))
        kept = next(int(line.split()[1]) for line in lines[begin:] if line.startswith("Rss:"))
        assert session.memory.packed >= weight.nbytes
    assert kept < weight.nbytes // 1024 // 4


def test_what_is_no_map_or_can_be_written_stays() -> None:
    own = np.arange(1 << 16, dtype=np.float32)
    with mmap.mmap(-1, own.nbytes) as anonymous:
        view = np.frombuffer(anonymous, np.float32)
        view[:] = own
        for array in (own, view, own[::2], own[:3]):
            let_go(array)
        np.testing.assert_array_equal(view, own)
        del view, array


def test_the_scratch_serves_one_copy_after_the_other(tmp_path: Path) -> None:
    scratch = Scratch()
    _, odd = mapped(tmp_path / "odd", 1)
    aligned = np.ones((4, 4), np.float32)
    assert scratch.aligned(aligned) is aligned
    copy = scratch.aligned(odd)
    assert copy.flags.aligned
    np.testing.assert_array_equal(copy, odd)
    again = scratch.aligned(odd[:2])
    assert np.shares_memory(copy, again)
    np.testing.assert_array_equal(again, odd[:2])


def repeated(steps: int, weights: dict[str, Array]) -> bytes:
    """x -> x W ... W, the weights in turn, each step with a name of its own."""
    nodes, value, names = [], "x", list(weights)
    for step in range(steps):
        nodes.append(helper.make_node("MatMul", [value, names[step % len(names)]], [f"y{step}"], f"m{step}"))
        value = f"y{step}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8]) for name in ("x", value)]
    held = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())


def test_a_weight_of_many_readers_is_packed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And found again in the cache, each reader with its own: both weights look alike to the index."""
    programs: list[list[Any]] = []
    made = NativeProgram.__init__

    def watched(self: NativeProgram, *arguments: Any, **keywords: Any) -> None:
        made(self, *arguments, **keywords)
        programs.append([step.inputs[1] for step in self.steps if step.kernel == "gemm"])

    monkeypatch.setattr(NativeProgram, "__init__", watched)
    random = np.random.default_rng(0)
    weights = {name: random.standard_normal((8, 8)).astype(np.float32) for name in ("a", "b")}
    x = random.standard_normal((3, 8)).astype(np.float32)
    wanted = x
    for step in range(7):
        wanted = wanted @ weights["ab"[step % 2]]
    model = tmp_path / "model.onnx"
    model.write_bytes(repeated(7, weights))
    for _ in range(2):
        with epkit.load(model, cache=tmp_path / "cache") as session:
            (found,) = session(x=x).values()
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    for operands in programs:
        assert len(operands) == 7
        assert len({id(operand) for operand in operands}) == 2
    assert len(programs) == 2


def test_an_array_in_the_place_of_one_that_is_gone_is_another() -> None:
    """Constants made for the while of a load may have the address of earlier ones."""
    prepared = Prepared()
    memory = np.zeros(16, np.float32)
    for number in range(3):
        memory[:] = number
        array = np.frombuffer(memory.tobytes(), np.float32)
        made = prepared.get("pack", b"", (array,), partial(np.multiply, array, 2))
        assert (made == 2 * number).all()
        del array, made


def test_words_of_a_table_anywhere_in_a_file(tmp_path: Path) -> None:
    """Gather reads an unaligned table where it lies; who computes with it gets an aligned copy."""
    table = np.random.default_rng(1).standard_normal((300, 8)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "i"], ["y"]),
        helper.make_node("Gather", ["summed", "i"], ["part"]),
        helper.make_node("Add", ["x", "summed"], ["z"]),
    ]
    info = helper.make_tensor_value_info
    ends = [info("i", TensorProto.INT64, ["n"]), info("x", TensorProto.FLOAT, [300, 8])]
    outs = [info("y", TensorProto.FLOAT, None), info("part", TensorProto.FLOAT, None)]
    outs.append(info("z", TensorProto.FLOAT, None))
    weights = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(-table, "summed")]
    i, x = np.array([5, -1, 0]), np.ones((300, 8), np.float32)
    for pad in range(4):
        graph = helper.make_graph(nodes, "g" * (pad + 1), ends, outs, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        path = tmp_path / f"{pad}.onnx"
        onnx.save(model, path)
        with epkit.load(path) as session:
            found = session(i=i, x=x)
        np.testing.assert_array_equal(found["y"], table[i])
        np.testing.assert_array_equal(found["part"], -table[i])
        np.testing.assert_array_equal(found["z"], x - table)


def test_a_saved_program_is_that_of_the_environment_it_was_made_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps are saved, so what decides about them belongs to what they are found by."""
    monkeypatch.setattr("epkit.model.seal.SETTLED_NS", -1)
    model = tmp_path / "model.onnx"
    model.write_bytes(repeated(1, {"a": np.eye(8, dtype=np.float32)}))
    names: list[str] = []
    environments = [
        ("EPKIT_CPU_WINOGRAD", "auto"),
        ("EPKIT_CPU_WINOGRAD", "off"),
        *(("EPKIT_CPU_ISA", isa) for isa in isas()[1:]),
    ]
    for knob, value in environments:
        monkeypatch.setenv(knob, value)
        for _ in range(2):
            with epkit.load(model, ["cpu"], cache=tmp_path / "cache") as session:
                names.append(session.load_trace.events[-1].name)
    assert names == ["cache", "snapshot"] * len(environments)
