"""A Concat whose inputs lie one after the other copies none of them where the planner could put them there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import epkit
from epkit.testing.models import model

movement = pytest.importorskip("epkit_opencl.kernels.movement")


@pytest.mark.parametrize(
    ("sizes", "axis", "copies"),
    [
        pytest.param((8, 16), 1, 0, id="pieces of whole lines of memory"),
        pytest.param((8, 16), 3, 2, id="pieces that are interleaved"),
    ],
)
def test_what_is_made_in_its_place_is_not_copied(
    sizes: tuple[int, int], axis: int, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0
    copy = movement.copy

    def counted(*args: Any) -> None:
        nonlocal count
        count += 1
        copy(*args)

    monkeypatch.setattr(movement, "copy", counted)
    channels, side = sizes
    shape = [1, channels, side, side]
    proto = model(
        f"g (float{shape} x, float{shape} z) => (float[A, B, C, D] y) {{"
        f"a = Softmax(x)  b = Softmax <axis = 2> (z)  c = Concat <axis = {axis}> (a, b)  y = Softmax <axis = 1> (c) }}"
    )
    rng = np.random.default_rng(0)
    with epkit.load(proto, ["opencl"], fallback="error") as session:
        for _ in range(3):
            feeds = {name: rng.standard_normal(shape).astype(np.float32) for name in "xz"}
            found = session.run(None, feeds)["y"]
            with epkit.load(proto, ["cpu"]) as peer:
                np.testing.assert_allclose(found, peer.run(None, feeds)["y"], rtol=1e-5, atol=1e-6)
    assert count in (copies, 3 * copies)
