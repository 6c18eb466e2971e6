"""Outputs that stay on their device, and inputs that are there already: nothing is copied, nothing is lost."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

import epkit
import epkit.backend as ep
from epkit.errors import InputError
from epkit.runtime.on_device import DeviceArray
from epkit.testing.awkward import by_chance
from epkit.testing.device import FakeDevice, device_provider
from epkit.testing.models import model, random_feeds, random_model
from epkit.testing.oracle import assert_same, expected
from epkit.testing.plugins import registry_of

STEP = model(
    "g (float[N, 4] x, float[N, 4] s) => (float[N, 4] y, float[N, 4] t) { y = Relu(x)  t = Add(s, y) }"
)
X = np.arange(-6, 6, dtype=np.float32).reshape(3, 4)
ALL = epkit.RunOptions(on_device=True)


class Counted(FakeDevice):
    """A device that counts its copies."""

    def __init__(self) -> None:
        super().__init__()
        self.copies = {"in": 0, "out": 0}
        for name, key in (("copy_in", "in"), ("copy_out", "out")):
            setattr(self.memory, name, self._counting(getattr(self.memory, name), key))

    def _counting(self, plain: Any, key: str) -> Any:
        def copy(*args: Any) -> None:
            self.copies[key] += 1
            plain(*args)

        return copy


def test_what_stays_goes_into_the_next_run_without_a_copy() -> None:
    device = Counted()
    with epkit.load(STEP, ["toy"], registry=registry_of(device_provider("toy", device))) as session:
        state: Any = np.zeros_like(X)
        for _ in range(5):
            state = session.run(["t"], {"x": X, "s": state}, epkit.RunOptions(on_device=["t"]))["t"]
            assert isinstance(state, DeviceArray) and (state.shape, state.dtype) == (X.shape, X.dtype)
        assert device.copies == {"in": 6, "out": 5}  # x each time and the first state; y each time
        np.testing.assert_array_equal(state.numpy(), 5 * np.maximum(X, 0))
        assert state.device == "toy:0" and "toy:0" in repr(state)
        before = device.memory.allocations
        for _ in range(5):
            state = session.run(["t"], {"x": X, "s": state}, epkit.RunOptions(on_device=["t"]))["t"]
        assert device.memory.allocations == before  # a state that nobody holds any more is memory again
    np.testing.assert_array_equal(state.numpy(), 10 * np.maximum(X, 0))  # also after the session
    del state
    device.assert_clean()


def test_views_of_inputs_and_of_each_other_have_memory_of_their_own() -> None:
    device = FakeDevice()
    views = model("g (float[N, 4] x) => (float[N, 4] y, float[A, B] f, float[N, 4] z) "
                  "{ y = Identity(x)  z = Relu(x)  f = Flatten(z) }")  # fmt: skip
    with epkit.load(
        views, ["toy"], registry=registry_of(device_provider("toy", device)), optimise="none"
    ) as session:
        first = session.run(None, {"x": X}, ALL)
        second = session.run(None, {"x": X + 1}, ALL)
        for found, x in ((first, X), (second, X + 1)):
            for name, want in (("y", x), ("z", np.maximum(x, 0)), ("f", np.maximum(x, 0))):
                np.testing.assert_array_equal(found[name].numpy(), want)
        spans = [value.tensor.span for value in (*first.values(), *second.values())]
        assert len(set(spans)) == 6
    del first, second, found
    device.assert_clean()


@pytest.mark.parametrize("seed", range(12))
def test_random_models_give_the_same_wherever_their_outputs_stay(seed: int) -> None:
    rng = random.Random(seed)
    graph, devices = random_model(rng), [FakeDevice(), FakeDevice()]
    feeds: dict[str, Any] = random_feeds(seed)
    registry = registry_of(
        *(
            device_provider(name, found, by_chance(seed + len(name), 0.6))
            for name, found in zip(("a", "bb"), devices, strict=True)
        )
    )
    names = [value.name for value in graph.graph.output]
    with epkit.load(graph, ["a", "bb"], registry=registry, optimise="none") as session:
        given: dict[str, Any] = dict(feeds)
        for _ in range(3):
            chosen = rng.sample(names, rng.randint(0, len(names)))
            found = session.run(None, given, epkit.RunOptions(on_device=chosen))
            on_device = {name: value for name, value in found.items() if isinstance(value, DeviceArray)}
            assert set(on_device) <= set(chosen)
            plain = {n: on_device[n].numpy() if n in on_device else value for n, value in found.items()}
            assert_same(plain, expected(graph, feeds))
            fitting = [value for value in on_device.values() if value.shape == feeds["a"].shape]
            if fitting:  # a device's value as an input, wherever it is read
                feeds["a"], given["a"] = fitting[0].numpy(), fitting[0]
        del found, on_device, fitting, given
    for device in devices:
        device.assert_clean()


def test_what_the_host_needs_or_makes_is_the_host_s() -> None:
    device = FakeDevice()
    mixed = model("g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z) { y = Relu(x)  z = Erf(y) }")
    registry = registry_of(device_provider("toy", device))
    with epkit.load(mixed, ["toy"], registry=registry, optimise="none") as session:
        found = session.run(None, {"x": X}, ALL)
        assert all(isinstance(value, np.ndarray) for value in found.values())
    device.assert_clean()


def test_wrong_inputs_and_names_are_told() -> None:
    device, other = FakeDevice(), FakeDevice()
    with (
        epkit.load(STEP, ["toy"], registry=registry_of(device_provider("toy", device))) as session,
        epkit.load(STEP, ["far"], registry=registry_of(device_provider("far", other))) as far,
    ):
        made = far.run(None, {"x": X, "s": X}, ALL)["t"]
        with pytest.raises(InputError, match="on far:0, which no provider") as caught:
            session.run(None, {"x": X, "s": made})
        assert "numpy()" in str(caught.value)
        with pytest.raises(BufferError, match="do not speak DLPack"):
            np.from_dlpack(made)
        with pytest.raises(InputError, match="no output 'u'"):
            session.run(None, {"x": X, "s": X}, epkit.RunOptions(on_device=["u"]))
        with pytest.raises(InputError, match=r"on DLPack device \(2, 1\)"):
            session.run(None, {"x": X, "s": Elsewhere()})
        narrow = session.run(None, {"x": X, "s": X}, ALL)["t"]
        with epkit.load(
            model("g (float[N, 3] x) => (float[N, 3] y) { y = Relu(x) }"),
            ["toy"],
            registry=registry_of(device_provider("toy", device)),
        ) as third:
            with pytest.raises(InputError, match="which no provider"):
                third.run(None, {"x": narrow})
        narrow.shape = (3, 5)
        with pytest.raises(InputError, match="the model wants 4"):
            session.run(None, {"x": X, "s": narrow})


class Elsewhere:
    """An array of a device that nobody here has."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 1)


# ---- another library's memory ----


class Sharing(ep.HostAllocator):
    """A device that reads the host's memory in place."""

    def imported(self, array: Any, stream: ep.Stream) -> Any:
        return np.from_dlpack(array) if array.__dlpack_device__() == (1, 0) else None


class SharingProvider(ep.KernelProvider):
    """Doubles on such a device; ``seen`` has the addresses of what it read."""

    name, version = "sharing", "1"
    seen: list[int]

    def devices(self) -> ep.Devices:
        return ep.Devices((ep.Device("sharing:0", "toy", "shares memory", host_memory=False),))

    def allocator(self, device: ep.Device) -> ep.Allocator:
        return Sharing()

    @property
    def table(self) -> ep.KernelTable:
        @ep.kernel("Relu", types={"X": {"float32"}})
        def double(x: Any, *, context: ep.RunContext, node: Any) -> Any:
            type(self).seen.append(x.ctypes.data)
            out = context.empty(node.outputs[0], x.shape, x.dtype)
            np.multiply(x, 2, out=out)
            return out

        return ep.KernelTable((double,))


def test_torch_s_memory_is_read_and_kept_without_a_copy() -> None:
    torch = pytest.importorskip("torch")
    SharingProvider.seen = []
    graph = model("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    with epkit.load(graph, ["sharing"], registry=registry_of(SharingProvider), fallback="error") as session:
        x = torch.arange(100, dtype=torch.float32)
        held = session.run(None, {"x": x}, ALL)["y"]
        assert SharingProvider.seen == [x.data_ptr()]
        assert held.__dlpack_device__() == (1, 0)
        y = torch.from_dlpack(held)
        assert y.data_ptr() == held.tensor.ctypes.data
        in_use = session.memory.arenas[-1].held
        del held
        for _ in range(3):  # nothing of this is written into the memory that torch has
            session.run(None, {"x": -x}, ALL)
        torch.testing.assert_close(y, 2 * x)
        session.run(None, {"x": y})
        assert SharingProvider.seen[-1] == y.data_ptr() and session.memory.arenas[-1].held >= in_use
