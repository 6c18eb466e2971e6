"""RotaryEmbedding and MRotaryEmbedding against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contrib_node import BF16, check, rand, run

import epkit


def caches(positions: int, pairs: int, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    angle = np.arange(positions)[:, None] * 0.7 ** np.arange(pairs)
    return {"cos": np.cos(angle).astype(dtype), "sin": np.sin(angle).astype(dtype)}


def ids(batch: int, length: int, most: int = 16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, most, (batch, length))


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("position_ids", [ids(2, 3), np.array([4])])
def test_rotary_embedding(interleaved: int, position_ids: np.ndarray) -> None:
    for x, pairs, how in (
        (rand(2, 3, 24), 4, {}),
        (rand(2, 4, 3, 8), 4, {}),
        (rand(2, 3, 24), 2, {"num_heads": 3, "rotary_embedding_dim": 4}),
        (rand(2, 4, 3, 8), 3, {"rotary_embedding_dim": 6, "num_heads": 4}),
        (rand(2, 3, 24), 4, {"num_heads": 3, "scale": 2.0}),
    ):
        inputs = {"x": x, "ids": position_ids, **caches(16, pairs)}
        check("RotaryEmbedding", inputs, interleaved=interleaved, **how)


def test_rotary_embedding_in_half_precision() -> None:
    x, positions = rand(2, 3, 24), ids(2, 3)
    check(
        "RotaryEmbedding",
        {"x": x.astype(np.float16), "ids": positions, **caches(16, 4, np.float16)},
        atol=2e-3,
    )
    (y,) = run("RotaryEmbedding", {"x": x.astype(BF16), "ids": positions, **caches(16, 4, BF16)})
    (z,) = run("RotaryEmbedding", {"x": x, "ids": positions, **caches(16, 4)})
    np.testing.assert_allclose(y.astype(np.float32), z, atol=0.05)


@pytest.mark.parametrize("layout", [0, 1])
@pytest.mark.parametrize("section", [[3, 3, 2], [8, 0, 0], [2, 3, 3]])
def test_m_rotary_embedding(layout: int, section: list[int]) -> None:
    positions = np.random.default_rng(1).integers(0, 16, (3, 2, 5))
    for x, interleaved in ((rand(2, 5, 48), 0), (rand(2, 3, 5, 16), 0), (rand(2, 5, 48), 1)):
        inputs = {"x": x, "ids": positions, **caches(16, 8)}
        how = {"mrope_section": section, "mrope_layout": layout, "interleaved": interleaved, "num_heads": 3}
        check("MRotaryEmbedding", inputs, **how)
        check("MRotaryEmbedding", inputs, **how, scale=0.5)


def test_three_equal_positions_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPKIT_CPU_ISA", "none")  # a native kernel may fuse the products
    positions = ids(2, 5)
    inputs = {"x": rand(2, 5, 48), "ids": np.stack([positions] * 3), **caches(16, 8)}
    (y,) = run("MRotaryEmbedding", inputs, mrope_section=[3, 3, 2])
    (z,) = run("RotaryEmbedding", inputs | {"ids": positions})
    np.testing.assert_array_equal(y, z)


@pytest.mark.parametrize(
    ("change", "how", "message"),
    [
        ({"ids": ids(2, 3) + 16}, {}, "position is outside"),
        ({"ids": ids(3, 2)}, {}, "position_ids of shape"),
        ({"x": rand(2, 3, 25)}, {}, "cannot be split"),
        ({}, {"num_heads": 3, "rotary_embedding_dim": 10}, "rotary_embedding_dim=10"),
    ],
)
def test_refusals(change: dict[str, Any], how: dict[str, Any], message: str) -> None:
    with pytest.raises(epkit.EpkitError, match=message):
        run("RotaryEmbedding", {"x": rand(2, 3, 24), "ids": ids(2, 3), **caches(16, 4)} | change, **how)


def test_packed_batches_have_positions_of_their_own() -> None:
    inputs = {
        "x": rand(1, 5, 16),
        "position_ids": np.array([[0, 1, 2, 0, 1]], np.int64),
        "cos": rand(8, 4),
        "sin": rand(8, 4, seed=1),
    }
    check("RotaryEmbedding", inputs, num_heads=2, rotary_embedding_dim=8, is_packed_batching=1)
