"""What cuDNN's frontend is asked for: layouts, pointers, what is kept, and what is done where it has no plan."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_standin import StandIn
from cuda_standin_arrays import DeviceArray

from epkit_cuda.cudnn_graphs import Graphs


class NotSupportedError(Exception):
    """What the frontend raises where no engine fits."""


class FakeTensor:
    """Remembers what it is told; every setter gives the tensor itself, as the frontend's do."""

    def __init__(self, **said: Any) -> None:
        self.said = said

    def __getattr__(self, name: str) -> Any:
        def tell(value: Any) -> FakeTensor:
            self.said[name.removeprefix("set_")] = value
            return self

        return tell


class FakeGraph:
    """The calls that were made, in order."""

    supported = True

    def __init__(self, **options: Any) -> None:
        self.calls: list[tuple[str, Any]] = [("pygraph", options)]
        self.executed: list[Any] = []
        made.append(self)

    def tensor(self, **said: Any) -> FakeTensor:
        return FakeTensor(**said)

    def get_workspace_size(self) -> int:
        return 48

    def execute(self, values: Any, workspace: int, *, handle: Any) -> None:
        self.calls.append(("execute", handle))
        self.executed.append((values, workspace))

    def sdpa(self, **options: Any) -> list[Any]:
        self.calls.append(("sdpa", options))
        return [FakeTensor(), None]

    def check_support(self) -> None:
        if not FakeGraph.supported:
            raise NotSupportedError

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **options: Any) -> FakeTensor:
            self.calls.append((name, options or args))
            return FakeTensor()

        return call


made: list[FakeGraph] = []
FAKE = SimpleNamespace(
    data_type=SimpleNamespace(FLOAT="float", HALF="half", BFLOAT16="bfloat16"),
    heur_mode=SimpleNamespace(A="a", FALLBACK="fallback"),
    scalar_type=SimpleNamespace(RUNTIME_PARAM="constant"),
    numerical_note=SimpleNamespace(TENSOR_CORE="tensor core"),
    cudnnGraphNotSupportedError=NotSupportedError,
    create_handle=lambda: "handle",
    set_stream=lambda **options: None,
    pygraph=FakeGraph,
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    made.clear()
    monkeypatch.setattr(FakeGraph, "supported", True)


def graphs() -> Graphs:
    return Graphs(FAKE, lambda nbytes: SimpleNamespace(data=SimpleNamespace(ptr=1000 + nbytes)))


def arrays(dtype: Any, *shapes: tuple[int, ...]) -> list[DeviceArray]:
    return [DeviceArray(np.zeros(shape, dtype), StandIn()) for shape in shapes]


WINDOW: dict[str, Any] = {"strides": (2, 1), "pads": (1, 2, 3, 4), "dilations": (1, 1), "stream": 7}


def test_a_convolution_with_channels_last_is_told_its_strides_and_kept() -> None:
    library = graphs()
    x, w, bias, out = arrays(np.float16, (2, 5, 6, 8), (4, 3, 3, 8), (1, 4, 1, 1), (2, 4, 10, 4))
    x, w, out = (item.transpose(0, 3, 1, 2) for item in (x, w, out))
    for _ in range(3):
        assert library.convolve(x, w, out, strict=True, bias=bias, relu=6.0, **WINDOW)
    (graph,) = made
    calls = dict(graph.calls)
    assert calls["conv_fprop"]["image"].said["stride"] == [240, 1, 48, 8]
    assert (calls["conv_fprop"]["pre_padding"], calls["conv_fprop"]["post_padding"]) == ([1, 2], [3, 4])
    assert calls["relu"] == (calls["relu"][0],) and calls["tensor_scalar"] == (6.0, "constant")
    assert [name for name, _ in graph.calls].index("min") > [name for name, _ in graph.calls].index("relu")
    assert [name for name, _ in graph.calls].count("execute") == 3 and "deselect_numeric_notes" not in calls
    values, workspace = graph.executed[-1]
    assert list(values.values()) == [item.data.ptr for item in (x, w, bias, out)] and workspace == 1048


def test_one_channel_a_group_is_convolved_alone() -> None:
    library, (x, w, bias, out) = (
        graphs(),
        arrays(np.float16, (2, 8, 6, 6), (8, 1, 3, 3), (1, 8, 1, 1), (2, 8, 6, 6)),
    )
    assert not library.convolve(x, w, out, strict=False, bias=bias, **WINDOW)
    assert not library.convolve(x, w, out, strict=False, relu=6.0, **WINDOW)
    assert library.convolve(x, w, out, strict=False, **WINDOW) and len(made) == 1


def test_strict_float32_does_without_tensor_cores() -> None:
    x, w, out = arrays(np.float32, (1, 2, 5, 5), (3, 2, 1, 1), (1, 3, 5, 5))
    plain = {**WINDOW, "pads": (0, 0, 0, 0), "strides": (1, 1)}
    assert graphs().convolve(x, w, out, strict=True, **plain) and graphs().convolve(
        x, w, out, strict=False, **plain
    )
    assert ["deselect_numeric_notes" in dict(graph.calls) for graph in made] == [True, False]


def test_no_plan_is_said_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeGraph, "supported", False)
    library, (x, w, out) = graphs(), arrays(np.float16, (1, 2, 5, 5), (3, 2, 1, 1), (1, 3, 5, 5))
    assert not library.convolve(x, w, out, strict=False, **WINDOW)
    assert not library.convolve(x, w, out, strict=False, **WINDOW)
    assert len(made) == 1


def test_attention_is_for_sixteen_bits_and_heads_of_whole_vectors() -> None:
    library = graphs()
    q, k, out = arrays(np.float16, (1, 4, 3, 16), (1, 2, 5, 16), (1, 4, 3, 16))
    assert library.attend(q, k, k, None, out, scale=0.25, causal=True, stream=7)
    options = dict(made[0].calls)["sdpa"]
    assert options["attn_scale"] == 0.25 and options["use_causal_mask"] and "bias" not in options
    odd = arrays(np.float16, (1, 4, 3, 12), (1, 4, 3, 12))
    assert not library.attend(odd[0], odd[0], odd[0], None, odd[1], scale=1.0, causal=False, stream=7)
    single = arrays(np.float32, (1, 4, 3, 16), (1, 4, 3, 16))
    assert not library.attend(
        single[0], single[0], single[0], None, single[1], scale=1.0, causal=False, stream=7
    )
