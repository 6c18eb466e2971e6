"""Pieces of a tensor that lie in one piece of memory each are views of it: nothing is copied, nor planned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import epkit
from epkit.testing.models import model

movement = pytest.importorskip("epkit_opencl.kernels.movement")


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with each copy."""
    found: list[int] = []
    copy = movement.copy

    def counted(*args: Any) -> None:
        found.append(1)
        copy(*args)

    monkeypatch.setattr(movement, "copy", counted)
    return found


def agree(text: str, shape: tuple[int, ...]) -> epkit.Session:
    """A session whose results, three times, are those of the CPU provider."""
    graph = model(text)
    rng = np.random.default_rng(0)
    session = epkit.load(graph, ["opencl"], fallback="error", optimise="none")
    with epkit.load(graph, ["cpu"]) as peer:
        for _ in range(3):
            x = rng.standard_normal(shape).astype(np.float32)
            for one, other in zip(
                session.run(None, {"x": x}).values(), peer.run(None, {"x": x}).values(), strict=True
            ):
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    return session


@pytest.mark.parametrize(
    ("shape", "axis", "sizes", "copied"),
    [
        pytest.param((64, 32), 0, (32, 32), 0, id="rows"),
        pytest.param((1, 64, 4, 8), 1, (16, 48), 0, id="channels of one image"),
        pytest.param((1, 64, 4, 8), -3, (0, 64), 0, id="nothing, and the rest"),
        pytest.param((2, 64, 4, 8), 1, (16, 48), 2, id="channels of two images"),
        pytest.param((64, 32), 1, (16, 16), 2, id="columns"),
        pytest.param((5, 3), 0, (1, 4), 2, id="rows that are not aligned"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_pieces_are_views_where_the_axis_allows(
    known: bool, shape: tuple[int, ...], axis: int, sizes: tuple[int, int], copied: int, copies: list[int]
) -> None:
    dims = ", ".join(map(str, shape) if known else "ABCD"[: len(shape)])
    results = ["PQRS", "TUVW"] if not known else []
    made = [[str(size if k == axis % len(shape) else n) for k, n in enumerate(shape)] for size in sizes]
    outputs = [", ".join(names[: len(shape)]) for names in results] or [", ".join(each) for each in made]
    with agree(
        f"g (float[{dims}] x) => (float[{outputs[0]}] y, float[{outputs[1]}] z) <int64[2] s = {{{sizes[0]}, {sizes[1]}}}>"
        f" {{ a = Softmax(x)  b, c = Split <axis = {axis}> (a, s)  y = Softmax(b)  z = Softmax(c) }}",
        shape,
    ) as session:
        assert len(copies) == 3 * copied
        planned = {value.name for plan in session.memory.plans for value in plan.places}
        assert bool(copied) == ({"b", "c"} <= planned), "what is a view needs no place"


def test_pieces_that_are_results_and_pieces_of_pieces(copies: list[int]) -> None:
    text = """g (float[64, 32] x) => (float[16, 32] y, float[32, 32] z, float[16, 32] w)
        <int64[2] s = {32, 32}, int64[2] t = {16, 16}> {
        a = Softmax(x)  b, z = Split(a, s)  c, y = Split(b, t)  w = Softmax(c) }"""
    with agree(text, (64, 32)):
        assert not copies


@pytest.mark.parametrize(
    ("columns", "start", "end", "axis", "step", "copied"),
    [
        pytest.param(32, 16, 48, 0, 1, 0, id="rows"),
        pytest.param(3, 0, 16, 0, 1, 0, id="the first rows"),
        pytest.param(3, 1, 9, 0, 1, 1, id="rows that are not aligned"),
        pytest.param(32, 0, 64, 0, 2, 1, id="every second row"),
        pytest.param(32, 0, 16, 1, 1, 1, id="columns"),
        pytest.param(32, 63, -99, 0, -1, 1, id="backwards"),
    ],
)
def test_a_slice_is_a_view_where_it_lies_in_one_piece(
    columns: int, start: int, end: int, axis: int, step: int, copied: int, copies: list[int]
) -> None:
    text = f"""g (float[64, {columns}] x) => (float[A, B] y)
        <int64[1] s = {{{start}}}, int64[1] e = {{{end}}}, int64[1] ax = {{{axis}}}, int64[1] st = {{{step}}}> {{
        a = Softmax(x)  b = Slice(a, s, e, ax, st)  y = Softmax(b) }}"""
    with agree(text, (64, columns)):
        assert len(copies) == 3 * copied
