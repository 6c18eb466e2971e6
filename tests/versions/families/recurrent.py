"""RNN, GRU and LSTM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from ..case import Case, cases_for
from ..data import Array, floats

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@cases_for("RNN", "GRU", "LSTM")
def recurrent(op: str, version: int) -> Iterator[Case]:
    for case in _recurrent(op, version):
        known = {name: value for name, value in case.attributes.items() if name != "output_sequence"}
        yield case if version >= 7 else replace(case, twin=(7, known))


def _recurrent(op: str, version: int) -> Iterator[Case]:
    time, batch, features, hidden = 4, 2, 3, 5
    base: dict[str, Any] = {"hidden_size": hidden}
    if version < 7:
        base["output_sequence"] = 1
    if op == "GRU" and version == 1:
        base["direction"] = "forward"  # the default of that version is misspelt
    count = 3 if op == "LSTM" else 2

    def inputs(directions: int) -> list[Array | None]:
        rows = GATES[op] * hidden
        weights = [floats(directions, rows, size, low=-1, high=1) for size in (features, hidden)]
        return [floats(time, batch, features), *weights, floats(directions, 2 * rows, low=-1, high=1)]

    def state(directions: int, seed: int) -> Array:
        return floats(directions, batch, hidden, seed=seed)

    lengths = np.array([4, 2], np.int32)
    yield Case(inputs(1)[:3], base, outputs=count)
    yield Case([*inputs(1), lengths, state(1, 1)], {**base, "direction": "reverse"}, outputs=count)
    yield Case([*inputs(2), None, state(2, 1)], {**base, "direction": "bidirectional"}, outputs=count)
    if op == "LSTM":
        full = [*inputs(1), lengths, state(1, 1), state(1, 2), floats(1, 3 * hidden)]
        yield Case(full, base, outputs=count)
        yield Case(full, {**base, "input_forget": 1}, outputs=["", "y_h", "y_c"])
        yield _clipped(base)
    if op == "GRU" and version >= 3:
        yield Case(inputs(1), {**base, "linear_before_reset": 1}, outputs=count)
    named = {"RNN": ["Relu"], "GRU": ["HardSigmoid", "Tanh"], "LSTM": ["Sigmoid", "Relu", "Tanh"]}
    yield Case(inputs(1), {**base, "activations": named[op]}, outputs=count)
    if version >= 14:
        swapped = [
            x if x is None or i in (1, 2, 3) else x.swapaxes(0, 1).copy() for i, x in enumerate(inputs(1))
        ]
        yield Case(swapped, {**base, "layout": 1}, outputs=count)


def _clipped(base: dict[str, Any]) -> Case:
    """All gates at sigmoid(0), C at 5: the clip holds for the input of the last activation too."""
    zeros = [np.zeros(shape, np.float32) for shape in ((1, 1, 1), (1, 4, 1), (1, 4, 1), (1, 8), (1, 1, 1))]
    x, w, r, b, h = zeros
    last = np.float32(0.5 * np.tanh(0.8))
    return Case(
        [x, w, r, b, None, h, np.full((1, 1, 1), 5, np.float32)],
        {**base, "hidden_size": 1, "clip": 0.8},
        outputs=3,
        expect=lambda *_: (
            [np.full(shape, last) for shape in ((1, 1, 1, 1), (1, 1, 1))] + [h + np.float32(2.5)]
        ),
        retype=False,
    )
