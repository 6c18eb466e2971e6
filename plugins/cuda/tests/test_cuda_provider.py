"""What a user meets without a GPU, and the host's logic on the stand-in: copies, streams, graphs, errors."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import onnx.parser
import pytest
from cuda_standin import StandIn
from cuda_standin_arrays import DeviceArray

import epkit
import epkit.errors
import epkit_cuda.device as device
from epkit_cuda.device import Options
from epkit_cuda.memory import CudaAllocator, StreamPool, Tensor

MODEL = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 21]>
    agraph (float[N, 3] x) => (float[3, N] y) {
        a = Relu(x)  b = Add(a, x)  c = Transpose(b)  d = Exp(c)  s = Softmax(d)  y = Mul(s, c)
    }
""")


def wanted(x: Any) -> Any:
    c = (np.maximum(x, 0) + x).T
    e = np.exp(np.exp(c) - np.exp(c).max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) * c


def test_nothing_of_cuda_is_imported_before_a_device_is_opened() -> None:
    code = (
        "import sys, epkit, epkit_cuda, epkit_cuda.provider\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('cupy', 'cuda', 'nvidia', 'cudnn', 'nvmath')]\n"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_driver_says_so_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "DRIVER", "libcuda-that-is-not-there.so.1")
    found = device.find_devices(Options())
    assert found.found == () and found.reason == "no NVIDIA driver" and "nvidia-smi" in found.remedy
    with pytest.raises(epkit.errors.UnavailableProviderError, match="no NVIDIA driver"):
        epkit.load(MODEL, ["cuda"])


def test_no_cupy_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "has_driver", lambda: True)
    monkeypatch.setattr(device, "has_cupy", lambda: False)
    found = device.find_devices(Options())
    assert found.found == () and "CuPy" in found.reason and "pip install epkit-cuda[cu13]" in found.remedy


@pytest.mark.parametrize(
    "options", [{"device": -1}, {"precision": "fp8"}, {"stream": -5}, {"precison": "fp16"}, {"device": "x"}]
)
def test_wrong_options_are_errors(gpu: StandIn, options: dict[str, Any]) -> None:
    with pytest.raises(epkit.errors.OptionError):
        epkit.load(MODEL, [("cuda", options)])


@pytest.mark.parametrize("capture", [False, True])
def test_one_copy_in_one_out_and_the_same_results(gpu: StandIn, capture: bool) -> None:
    with epkit.load(MODEL, ["cuda"], fallback="error", capture=capture) as session:
        for run in range(6):
            x = np.random.default_rng(run).standard_normal((4, 3)).astype(np.float32)
            np.testing.assert_allclose(session(x=x)["y"], wanted(x), rtol=2e-5, atol=1e-6)
    assert (gpu.copies_in, gpu.copies_out, gpu.implicit_reads) == (6, 6, 0)
    assert gpu.streams_made == 1  # the runs came one after the other
    assert gpu.graph_launches == (4 if capture else 0)
    assert gpu.in_use == 0


def test_each_shape_has_a_graph_of_its_own(gpu: StandIn) -> None:
    with epkit.load(MODEL, ["cuda"], capture=True) as session:
        for run in range(12):
            x = np.random.default_rng(run).standard_normal((2 + run % 3, 3)).astype(np.float32)
            np.testing.assert_allclose(session(x=x)["y"], wanted(x), rtol=2e-5, atol=1e-6)
    assert gpu.graph_launches == 6  # for each of three shapes, the third run and the fourth


def test_a_size_that_changes_under_a_graph_runs_without_it(gpu: StandIn) -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[6] x, int64[2] s) => (float[A, B] y) { a = Exp(x)  b = Reshape(a, s)  y = Transpose(b) }
    """)
    x = np.arange(6, dtype=np.float32)
    with epkit.load(model, ["cuda"], capture=True) as session:
        for shape in ([2, 3],) * 5 + ([3, 2], [6, 1], [2, 3]):
            found = session(x=x, s=np.array(shape))["y"]
            np.testing.assert_allclose(found, np.exp(x).reshape(shape).T, rtol=1e-6)
    assert gpu.graph_launches == 4  # runs 3 to 5, and the last


def test_what_needs_the_host_in_between_is_not_captured(gpu: StandIn) -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[N] x) => (int64[1, M] y) { a = Relu(x)  y = NonZero(a) }
    """)
    with epkit.load(model, ["cuda"], capture=True) as session:
        for run in range(5):
            x = np.random.default_rng(run).standard_normal(7).astype(np.float32)
            assert session(x=x)["y"].tolist() == [np.flatnonzero(x > 0).tolist()]


def test_values_stay_on_the_device_and_come_from_another_library_without_a_copy(gpu: StandIn) -> None:
    options = epkit.RunOptions(on_device=True)
    with epkit.load(MODEL, ["cuda"], fallback="error", capture=True) as session:
        kept = []
        for run in range(6):
            x = np.random.default_rng(run).standard_normal((4, 3)).astype(np.float32)
            kept.append((session.run(None, {"x": gpu.xp.asarray(x)}, options)["y"], wanted(x)))
        assert (gpu.copies_in, gpu.copies_out, gpu.implicit_reads) == (0, 0, 0)
        assert gpu.graph_launches == 4
        shared = gpu.xp.from_dlpack(kept[0][0])
        assert shared.data.ptr == kept[0][0].tensor.array.data.ptr
        again = session.run(None, {"x": session.run(None, {"x": x.T[:, :3]}, options)["y"].numpy()})["y"]
        assert again.shape == (3, 3)
        for found, want in kept:
            assert found.__dlpack_device__() == (2, 0)
            np.testing.assert_allclose(found.numpy(), want, rtol=2e-5, atol=1e-6)
        with pytest.raises(epkit.errors.InputError, match=r"DLPack device \(2, 1\)"):
            session.run(None, {"x": DeviceArray(np.zeros((4, 3), np.float32), StandIn(1))})


def test_a_replay_copies_nothing_that_lies_where_it_was_recorded(gpu: StandIn) -> None:
    stay = epkit.RunOptions(on_device=True)
    with epkit.load(MODEL, ["cuda"], fallback="error", capture=True) as session:
        for run in range(5):
            x = np.random.default_rng(run).standard_normal((4, 3)).astype(np.float32)
            np.testing.assert_allclose(session(x=x)["y"], wanted(x), rtol=2e-5, atol=1e-6)
        assert (gpu.graph_launches, gpu.copies_between) == (3, 0)
        given = [gpu.xp.asarray(np.full((4, 3), value, np.float32)) for value in (1, 2)]
        for run in range(6):  # elsewhere: each is read there by a recording
            x = np.full((4, 3), 1 + run % 2, np.float32)
            found = session.run(None, {"x": given[run % 2]})["y"]
            np.testing.assert_allclose(found, wanted(x), rtol=2e-5, atol=1e-6)
        assert (gpu.graph_launches, gpu.copies_between) == (9, 0)
        for run in range(4):  # wherever: copied to a last recording's own place
            x = np.full((4, 3), run, np.float32)
            kept = gpu.xp.asarray(x), session.run(None, {"x": gpu.xp.asarray(x)}, stay)["y"]
            np.testing.assert_allclose(kept[1].numpy(), wanted(x), rtol=2e-5, atol=1e-6)
        assert gpu.graph_launches == 13 and gpu.copies_between


def test_what_stays_goes_in_turn_between_two_recordings_and_is_not_overwritten(gpu: StandIn) -> None:
    stay = epkit.RunOptions(on_device=True)
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[N, 3] x) => (float[3, N] y) { t = Transpose(x)  s = Sin(t)  y = Add(s, t) }
    """)

    def next_of(x: Any) -> Any:
        return np.sin(x.T) + x.T

    with epkit.load(model, ["cuda"], fallback="error", capture=True) as session:
        x = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)
        y = session.run(None, {"x": gpu.xp.asarray(x)}, stay)["y"]
        want, made = next_of(x), [(y, next_of(x))]
        for run in range(12):
            if run == 4:
                copies, graphs = gpu.copies_between, gpu.graph_launches
            y = session.run(None, {"x": y}, stay)["y"]
            want = next_of(want)
            made = [(y, want)] if run < 7 else [*made, (y, want)]
            np.testing.assert_allclose(y.numpy(), want, rtol=1e-3, atol=1e-5)
            if run == 7:
                assert (gpu.copies_between, gpu.graph_launches - graphs) == (copies, 4)
        for found, value in made:
            np.testing.assert_allclose(found.numpy(), value, rtol=1e-3, atol=1e-5)
        shared = gpu.xp.from_dlpack(y)
        kept = shared.copy()
        del y, found, made
        session.run(None, {"x": gpu.xp.asarray(x)}, stay)
        session.run(None, {"x": gpu.xp.asarray(x)}, stay)
        np.testing.assert_array_equal(shared.tolist(), kept.tolist())


def test_a_kept_view_of_an_input_has_memory_of_its_own(gpu: StandIn) -> None:
    stay = epkit.RunOptions(on_device=True)
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 21]>
        agraph (float[2, 3] x) => (float[1, 6] y, float[2, 3] z) { y = Flatten <axis=0> (x)  z = Exp(x) }
    """)
    with epkit.load(model, ["cuda"], fallback="error", capture=True) as session:
        x = gpu.xp.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))
        for _ in range(5):
            y = session.run(None, {"x": x}, stay)["y"]
        x[...] = 0
        np.testing.assert_array_equal(y.numpy(), [np.arange(6)])
    assert gpu.graph_launches == 3


def test_a_run_that_comes_while_a_graph_s_results_are_read_does_without_it(gpu: StandIn) -> None:
    with epkit.load(MODEL, ["cuda"], fallback="error", capture=True) as session:
        for _ in range(4):
            session(x=np.zeros((4, 3), np.float32))
        launched, inner = gpu.graph_launches, []
        plain = gpu.copy_out

        def in_between(source: Any, target: Any, stream: Any) -> None:
            gpu.copy_out = plain  # type: ignore[method-assign]
            inner.append(session(x=np.ones((4, 3), np.float32))["y"])
            plain(source, target, stream)

        gpu.copy_out = in_between  # type: ignore[method-assign]
        outer = session(x=np.full((4, 3), 2, np.float32))["y"]
        assert gpu.graph_launches == launched + 1
        for found, value in ((outer, 2), (inner[0], 1)):
            np.testing.assert_allclose(
                found, wanted(np.full((4, 3), value, np.float32)), rtol=2e-5, atol=1e-6
            )
        session(x=np.zeros((4, 3), np.float32))
        assert gpu.graph_launches == launched + 2


def test_staging_memory_is_reused_and_copies_arrive_at_synchronise(gpu: StandIn) -> None:
    streams = StreamPool(gpu)
    stream, allocator = streams.take(), CudaAllocator(gpu)
    buffer = allocator.allocate(1 << 16)
    source, result = np.arange(1000, dtype=np.float32), np.zeros(1000, np.float32)
    for run in range(3):
        tensor = allocator.view(buffer, 512, source.shape, source.dtype)
        allocator.copy_in(source + run, tensor, stream)
        allocator.copy_out(tensor, result, stream)
        assert result[999] != 999 + run
        stream.synchronize()
        assert result[999] == 999 + run
    assert len(stream._idle) == 2
    stream.close()
    assert streams.take() is stream


def test_too_little_memory_is_told_with_sizes(gpu: StandIn) -> None:
    gpu.limit = 1000
    with epkit.load(MODEL, ["cuda"]) as session:
        with pytest.raises(epkit.errors.DeviceMemoryError, match="cuda:0"):
            session(x=np.zeros((1000, 3), np.float32))
    assert gpu.in_use == 0


def test_the_stand_in_refuses_what_cupy_refuses(gpu: StandIn) -> None:
    x = DeviceArray(np.zeros(3), gpu)
    for wrong in (lambda: np.asarray(x), lambda: x + np.ones(3), lambda: gpu.xp.add(x, np.ones(3))):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(TypeError):
        np.asarray(Tensor(x).array)
