"""Whatever shapes, strides, attributes and sizes come: a right result, or an error of epkit; never the end of the process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import epkit
from epkit.errors import DeviceMemoryError, RunError
from epkit_cpu import compile as native_compile
from epkit_cpu.native import isas

Array = np.ndarray[Any, Any]
BY_CHANCE = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

pytestmark = pytest.mark.skipif(not isas(), reason="the package was built without a compiler")


def model_of(
    nodes: list[onnx.NodeProto], feeds: Mapping[str, Array], outputs: list[str], weights: Mapping[str, Array]
) -> onnx.ModelProto:
    """A model whose inputs have dimensions of any size."""
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(x.dtype), [f"{name}{i}" for i in range(x.ndim)]
        )
        for name, x in feeds.items()
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs]
    for result in results:
        result.ClearField("type")
    constants = [numpy_helper.from_array(w, n) for n, w in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, results, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


# ---- layouts of inputs ----


def misaligned(x: Array) -> Array:
    room = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    room[...] = x
    return room


def read_only(x: Array) -> Array:
    x = x.copy()
    x.flags.writeable = False
    return x


def every_second(x: Array) -> Array:
    return np.repeat(x, 2, axis=-1)[..., ::2]


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "misaligned": misaligned,
    "read-only": read_only,
    "every second": every_second,
    "backwards": lambda x: x[..., ::-1].copy()[..., ::-1],
    "all backwards": lambda x: np.flip(np.flip(x).copy()),
    "columns first": np.asfortranarray,
    "bytes swapped": lambda x: x.astype(x.dtype.newbyteorder()),
    "within another": lambda x: np.pad(x, 1)[tuple(slice(1, -1) for _ in range(x.ndim))],
}


@BY_CHANCE
@given(
    layout=st.sampled_from(sorted(LAYOUTS)),
    kind=st.sampled_from(["float32", "int64", "float16"]),
    shape=st.tuples(*[st.integers(0, 5)] * 3),
)
def test_inputs_of_any_layout(layout: str, kind: str, shape: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape)).reshape(shape).astype(kind)
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[2, 0, 1]),
        helper.make_node("Add", ["x", "one"], ["sum"]),
        helper.make_node("Concat", ["x", "x"], ["twice"], axis=1),
        helper.make_node("Identity", ["x"], ["same"]),
    ]
    names = ["turned", "sum", "twice", "same"]
    with epkit.load(model_of(nodes, {"x": x}, names, {"one": np.ones((), kind)})) as session:
        given = LAYOUTS[layout](x)
        assert np.array_equal(given, x)
        found = session(x=given)
    wanted = [x.transpose(2, 0, 1), x + x.dtype.type(1), np.concatenate([x, x], 1), x]
    for name, value in zip(names, wanted, strict=True):
        assert found[name].dtype == np.dtype(kind) and np.array_equal(found[name], value)
        assert not np.shares_memory(found[name], given)


# ---- attributes and inputs that say what is to be done ----

SMALL = st.integers(-4, 6)
# Of such sizes no machine has memory, and products of them overflow; what lies between could be had, slowly.
HUGE = st.sampled_from([-(2**63), -(2**62), -(2**48), 2**47, 2**61, 2**62, 2**63 - 1])
NUMBER = st.one_of(SMALL, SMALL, SMALL, HUGE)
SHAPE = st.lists(st.integers(0, 4), min_size=1, max_size=4).map(tuple)


def longs(data: st.DataObject, least: int, most: int) -> Array:
    return np.array(data.draw(st.lists(NUMBER, min_size=least, max_size=most)), np.int64)


def window(data: st.DataObject, rank: int) -> dict[str, Any]:
    """Attributes of something that slides, each of them perhaps."""

    def sized(n: int) -> st.SearchStrategy[list[int]]:
        return st.lists(NUMBER, min_size=n, max_size=n)

    found = {
        "strides": data.draw(st.none() | sized(rank)),
        "dilations": data.draw(st.none() | sized(rank)),
        "pads": data.draw(st.none() | sized(2 * rank)),
        "auto_pad": data.draw(st.sampled_from([None, "SAME_UPPER", "VALID"])),
    }
    if found["auto_pad"]:
        del found["pads"]
    return {name: value for name, value in found.items() if value is not None}


def question(op: str, data: st.DataObject) -> tuple[list[onnx.NodeProto], dict[str, Array], list[str]]:
    """A node, its inputs and the names of its outputs."""
    shape = data.draw(SHAPE)
    rank = len(shape)
    x = (np.arange(np.prod(shape)).reshape(shape) - 3).astype(np.float32)
    axis = data.draw(NUMBER)
    feeds: dict[str, Array] = {"x": x}
    outputs = ["y"]
    attributes: dict[str, Any] = {}
    match op:
        case "Reshape" | "Expand" | "Tile":
            feeds["n"] = longs(data, 0, 5)
        case "ConstantOfShape":
            feeds = {"n": longs(data, 0, 4)}
        case "Slice":
            for name in ("starts", "ends", "axes", "steps"):
                feeds[name] = longs(data, 1, 2)
        case "Pad":
            feeds["n"] = longs(data, 2 * rank, 2 * rank)
            attributes["mode"] = data.draw(st.sampled_from(["constant", "edge", "reflect"]))
        case "Split":
            feeds["n"] = longs(data, 3, 3)
            attributes["axis"], outputs = axis, ["", "y", "z"]
        case "Squeeze" | "Unsqueeze" | "ReduceMax" | "ReduceSum":
            feeds["n"] = longs(data, 0, 3)
        case "Flatten" | "Softmax" | "ArgMax" | "LayerNormalization":
            attributes["axis"] = axis
            if op == "LayerNormalization":
                feeds["scale"] = np.ones(shape[-1], np.float32)
        case "Gather" | "GatherElements":
            feeds["n"], attributes["axis"] = longs(data, 1, 4), axis
        case "GatherND":
            feeds["n"] = longs(data, 2, 2)
            attributes["batch_dims"] = data.draw(SMALL)
        case "ScatterND":
            feeds["n"], feeds["u"] = longs(data, 1, 1).reshape(1, 1), np.zeros((1, *shape[1:]), np.float32)
        case "ScatterElements":
            feeds["n"] = longs(data, 1, 1).reshape((1,) * rank)
            feeds["u"], attributes["axis"] = np.zeros((1,) * rank, np.float32), axis
        case "TopK":
            feeds["n"], attributes["axis"], outputs = longs(data, 1, 1), axis, ["y", "i"]
        case "CumSum":
            feeds["n"] = np.array(axis)
        case "Trilu":
            feeds["n"] = np.array(axis)
        case "Range":
            feeds = {name: np.array(data.draw(NUMBER)) for name in ("a", "b", "c")}
        case "Transpose":
            attributes["perm"] = data.draw(st.lists(SMALL, min_size=rank, max_size=rank))
        case "DepthToSpace" | "SpaceToDepth":
            feeds["x"] = np.zeros((1, 4, 4, 4), np.float32)
            attributes["blocksize"] = data.draw(NUMBER)
        case "Resize":
            scales = data.draw(
                st.lists(st.sampled_from([0.5, 2.0, 0.0, -1.0, 1e30, np.nan]), min_size=rank, max_size=rank)
            )
            feeds["roi"], feeds["s"] = np.zeros(0, np.float32), np.array(scales, np.float32)
        case "MaxPool" | "AveragePool":
            spatial = data.draw(st.integers(1, 3))
            feeds["x"] = np.ones((1, 2, *[5] * spatial), np.float32)
            attributes = window(data, spatial)
            attributes["kernel_shape"] = data.draw(st.lists(NUMBER, min_size=spatial, max_size=spatial))
            attributes["ceil_mode"] = data.draw(st.integers(0, 1))
            if op == "AveragePool":
                del attributes["auto_pad" if "auto_pad" in attributes else "ceil_mode"]
                attributes.pop("dilations", None)
        case "Conv" | "ConvTranspose":
            spatial = data.draw(st.integers(1, 3))
            feeds["x"] = np.ones((1, 4, *[data.draw(st.integers(1, 5))] * spatial), np.float32)
            attributes = window(data, spatial)
            attributes["group"] = data.draw(st.sampled_from([1, 1, 2, 0, -1, 3, 2**62]))
    return [helper.make_node(op, list(feeds), outputs, **attributes)], feeds, [o for o in outputs if o]


OPERATORS = [
    *("Reshape", "Expand", "Tile", "ConstantOfShape", "Slice", "Pad", "Split", "Squeeze", "Unsqueeze"),
    *("ReduceMax", "ReduceSum", "Flatten", "Softmax", "ArgMax", "LayerNormalization", "Gather", "GatherND"),
    *("GatherElements", "ScatterND", "ScatterElements", "TopK", "CumSum", "Trilu", "Range", "Transpose"),
    *("DepthToSpace", "SpaceToDepth", "Resize", "MaxPool", "AveragePool", "Conv", "ConvTranspose"),
]


def outcome(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array] | None:
    """The results; None where there was an error, which must be one of epkit's."""
    try:
        with epkit.load(model, optimise="none") as session:
            return session.run(None, dict(feeds))
    except epkit.EpkitError:
        return None


@pytest.mark.parametrize("op", OPERATORS)
def test_numbers_of_any_size(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the portable kernels have a result too, it is the same one."""

    @settings(max_examples=25, deadline=None)
    @given(data=st.data())
    def ask(data: st.DataObject) -> None:
        nodes, feeds, names = question(op, data)
        weights = {}
        if op in ("Conv", "ConvTranspose"):
            weights["w"] = np.ones((4, 2, *[2] * (feeds["x"].ndim - 2)), np.float32)
            nodes[0].input.append("w")
        model = model_of(nodes, feeds, names, weights)
        monkeypatch.delenv("EPKIT_CPU_ISA", raising=False)
        found = outcome(model, feeds)
        if found is None:
            return
        monkeypatch.setenv("EPKIT_CPU_ISA", "none")
        wanted = outcome(model, feeds)
        for name, value in (wanted or {}).items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)

    ask()


def convolution(**attributes: Any) -> tuple[list[onnx.NodeProto], dict[str, Array], dict[str, Array]]:
    kind = attributes.pop("kind", "Conv")
    node = helper.make_node(kind, ["x", "w"], ["y"], **attributes)
    return [node], {"x": np.ones((1, 3, 4, 4), np.float32)}, {"w": np.ones((3, 3, 2, 2), np.float32)}


OVERFLOWS = {
    "an empty tensor whose other sizes overflow": (
        [helper.make_node("Reshape", ["x", "n"], ["y"], allowzero=1)],
        {"x": np.zeros((0, 3), np.float32), "n": np.array([0, 2**40, 2**40])},
        {},
    ),
    "lengths of parts that nobody reads": (
        [helper.make_node("Split", ["x", "n"], ["", "", "y"], axis=0)],
        {"x": np.ones(6, np.float32), "n": np.array([2**63 - 1, 2**63 - 1, 8])},
        {},
    ),
    "padding": convolution(pads=[2**40] * 4),
    "padding and strides": convolution(pads=[2**30] * 4, strides=[2**30] * 2),
    "dilations": convolution(dilations=[2**62, 2**62]),
    "strides of a transposed convolution": convolution(kind="ConvTranspose", strides=[10**9, 10**9]),
    "pads": (
        [helper.make_node("Pad", ["x", "n"], ["y"])],
        {"x": np.ones((2, 2), np.float32), "n": np.array([2**62, 2**62, 2**62, 2**62])},
        {},
    ),
    "repeats": (
        [helper.make_node("Tile", ["x", "n"], ["y"])],
        {"x": np.ones((2, 2), np.float32), "n": np.array([2**61, 2**61])},
        {},
    ),
    "one-hot": (
        [helper.make_node("OneHot", ["x", "n", "v"], ["y"])],
        {"x": np.array([1, 2]), "n": np.array(2**62), "v": np.ones(2, np.float32)},
        {},
    ),
    "a resized image": (
        [helper.make_node("Resize", ["x", "", "", "n"], ["y"])],
        {"x": np.ones((1, 2), np.float32), "n": np.array([2**40, 2**40])},
        {},
    ),
    "ranges": (
        [helper.make_node("Range", ["a", "b", "c"], ["y"])],
        {"a": np.array(-(2**63)), "b": np.array(2**63 - 1), "c": np.array(1)},
        {},
    ),
}


@pytest.mark.parametrize("case", sorted(OVERFLOWS))
def test_sizes_that_overflow_are_told(case: str) -> None:
    nodes, feeds, weights = OVERFLOWS[case]
    with pytest.raises(epkit.EpkitError):
        with epkit.load(model_of(nodes, feeds, ["y"], weights), optimise="none") as session:
            session.run(None, feeds)


def test_a_declared_dimension_of_more_than_32_bits() -> None:
    """2**32 + 3 is not 3."""
    x = np.ones((2, 3), np.float32)
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": x}, ["y"], {})
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 2**32 + 3
    with epkit.load(model, optimise="none") as session, pytest.raises(epkit.EpkitError):
        session(x=x)


def test_without_memory_there_is_an_error_and_then_a_result() -> None:
    """In a process that may have little: results, scratch memory and the engine's own lists all come to their end."""
    script = """
        import resource
        import numpy as np, epkit
        from epkit.errors import DeviceMemoryError
        from onnx import parser
        text = '''<ir_version: 10, opset_import: ["": 18]> g (float[n, m] x, int64[2] s) => (float[a, b] y)
                  { big = Expand(x, s) t = Transpose(big) y = Exp(t) }'''
        session = epkit.load(parser.parse_model(text), [("cpu", {"threads": 1})])
        x = np.ones((1, 1), np.float32)
        session(x=x, s=np.array([4, 4]))
        pages = int(open("/proc/self/statm").read().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (96 << 20),) * 2)
        refused = 0
        for rows in range(256, 8192, 256):
            try:
                assert session(x=x, s=np.array([rows, 4096]))["y"].shape == (4096, rows)
            except DeviceMemoryError as error:
                refused += 1
                assert "memory" in str(error)
            assert session(x=x, s=np.array([3, 2]))["y"].shape == (2, 3)
        assert refused > 10, refused
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


# ---- what other threads do meanwhile ----


class Gate:
    """A Python step that waits: the run is under way for as long as the test wants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.open = threading.Event(), threading.Event()
        make = native_compile.portable_step

        def gated(*arguments: Any) -> Any:
            step = make(*arguments)

            def call(context: Any, inputs: list[Any]) -> Any:
                self.entered.set()
                assert self.open.wait(60)
                return step(context, inputs)

            return call

        monkeypatch.setattr(native_compile, "portable_step", gated)


@pytest.mark.parametrize("way", ["short", "long"])
def test_a_session_closed_during_a_run_finishes_that_run(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Det", ["a"], ["d"]),  # has no native kernel
        helper.make_node("Mul", ["a", "d"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    x, w = np.eye(40, dtype=np.float32)[None], np.eye(40, dtype=np.float32)
    session = epkit.load(model_of(nodes, {"x": x}, ["y"], {"w": w}))
    assert (session._feed is not None) and any(not s.kernel for s in program_of(session).steps)
    options = None if way == "short" else epkit.RunOptions()
    results: list[Array] = []
    thread = threading.Thread(target=lambda: results.append(session.run(None, {"x": x}, options)["y"]))
    thread.start()
    assert gate.entered.wait(60)
    program = program_of(session)
    session.close()
    session.close()
    with pytest.raises(RunError, match="closed"):
        session.run(None, {"x": x})
    gate.open.set()
    thread.join()
    assert len(results) == 1 and np.array_equal(results[0], x)
    assert program.memory().held == 0


def program_of(session: epkit.Session) -> native_compile.NativeProgram:
    (program,) = session._engine.compiled.programs.values()
    assert isinstance(program, native_compile.NativeProgram)
    return program


def test_sessions_opened_run_and_closed_by_many_threads() -> None:
    x = np.ones((64, 64), np.float32)
    model = model_of([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": x}, ["y"], {"w": x})
    wrong: list[object] = []

    def work(session: epkit.Session) -> None:
        for _ in range(200):
            try:
                if session.run(None, {"x": x})["y"][3, 3] != 64:
                    wrong.append("result")
            except RunError as error:
                if "closed" not in error.what:
                    wrong.append(error)
                return

    for _ in range(10):
        session = epkit.load(model, [("cpu", {"threads": 2})])
        threads = [threading.Thread(target=work, args=(session,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        session.run(None, {"x": x})
        session.close()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_dictionary_that_changes_while_it_is_read() -> None:
    """A key may have an ``__eq__`` of its own, which empties the dictionary at its second call."""
    calls = 0

    class Key(str):
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal calls
            calls += 1
            if calls == 2:
                feeds.clear()
            return True

    x = np.ones((300, 4), np.float32)
    with epkit.load(model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": x}, ["y"], {})) as session:
        assert session._feed is not None
        feeds: dict[str, Array] = {Key("x"): x}
        for _ in range(3):
            outcome = session._feed(feeds)
            assert outcome is NotImplemented or np.array_equal(outcome["y"], x)
        assert calls > 1 and not feeds


def test_memory_errors_are_told_apart() -> None:
    nodes = [helper.make_node("Expand", ["x", "n"], ["y"])]
    feeds = {"x": np.ones(1, np.float32), "n": np.array([2**46])}
    with epkit.load(model_of(nodes, feeds, ["y"], {})) as session:
        with pytest.raises(DeviceMemoryError, match="memory"):
            session.run(None, feeds)
