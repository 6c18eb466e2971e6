"""Recurrent layers against onnxruntime: directions, lengths, activations, old and new versions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from peer import assert_like_peer, data, ours

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STEPS, BATCH, FEATURES, HIDDEN = 5, 3, 4, 2


def inputs(name: str, directions: int, *, lengths: Any = None, peepholes: bool = False) -> list[Any]:
    width = GATES[name] * HIDDEN
    result = [
        data(STEPS, BATCH, FEATURES),
        data(directions, width, FEATURES, seed=1),
        data(directions, width, HIDDEN, seed=2),
        data(directions, 2 * width, seed=3),
        lengths,
        data(directions, BATCH, HIDDEN, seed=4),
    ]
    if name == "LSTM":
        result.append(data(directions, BATCH, HIDDEN, seed=5))
        result.append(data(directions, 3 * HIDDEN, seed=6) if peepholes else None)
    return result


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [None, [5, 2, 4]])
@pytest.mark.parametrize("opset", [7, 14])
def test_like_peer(name: str, direction: str, lengths: Any, opset: int) -> None:
    given = inputs(
        name,
        1 + (direction == "bidirectional"),
        lengths=None if lengths is None else np.array(lengths, np.int32),
    )
    outputs = 3 if name == "LSTM" else 2
    assert_like_peer(name, given, opset, outputs=outputs, direction=direction, hidden_size=HIDDEN)


@pytest.mark.parametrize("name", GATES)
def test_clip_and_missing_inputs(name: str) -> None:
    assert_like_peer(name, inputs(name, 1)[:3], 14, outputs=2, hidden_size=HIDDEN, clip=0.3)


@pytest.mark.parametrize("linear", [0, 1])
def test_gru_reset(linear: int) -> None:
    assert_like_peer("GRU", inputs("GRU", 1), 14, outputs=2, hidden_size=HIDDEN, linear_before_reset=linear)


@pytest.mark.parametrize("forget", [0, 1])
def test_lstm_peepholes_and_coupled_gates(forget: int) -> None:
    given = inputs("LSTM", 1, peepholes=True)
    assert_like_peer("LSTM", given, 14, outputs=3, hidden_size=HIDDEN, input_forget=forget)


@pytest.mark.parametrize(
    ("activations", "alpha", "beta"),
    [
        (["HardSigmoid", "Relu", "Softsign"], [0.3], [0.4]),
        (["Sigmoid", "LeakyRelu", "Elu"], [0.2, 0.7], []),
        (["sigmoid", "scaledtanh", "thresholdedrelu"], [0.5, 0.1], [1.5]),
        (["Softplus", "Affine", "Tanh"], [0.5], [0.1]),
    ],
)
def test_lstm_activations(activations: Any, alpha: Any, beta: Any) -> None:
    parameters = {"activation_alpha": alpha, "activation_beta": beta}
    given = {key: value for key, value in parameters.items() if value}
    assert_like_peer(
        "LSTM", inputs("LSTM", 1), 14, outputs=3, hidden_size=HIDDEN, activations=activations, **given
    )


def test_directions_may_have_their_own_activations() -> None:
    names = ["Relu", "Tanh"]
    both = ours("RNN", inputs("RNN", 2), 14, direction="bidirectional", activations=names)
    for d, direction in enumerate(["forward", "reverse"]):
        one = [x[d : d + 1] if n in (1, 2, 3, 5) else x for n, x in enumerate(inputs("RNN", 2))]
        alone = ours("RNN", one, 14, direction=direction, activations=names[d : d + 1])
        np.testing.assert_allclose(both[:, d : d + 1], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", GATES)
def test_batch_first(name: str) -> None:
    given = inputs(name, 2)
    y, h = ours(name, given, 14, outputs=2, direction="bidirectional")
    turned = [x if x is None or n in (1, 2, 3, 4, 7) else x.swapaxes(0, 1) for n, x in enumerate(given)]
    first, last = ours(name, turned, 14, outputs=2, direction="bidirectional", layout=1)
    np.testing.assert_array_equal(first, np.transpose(y, (2, 0, 1, 3)))
    np.testing.assert_array_equal(last, h.swapaxes(0, 1))


@pytest.mark.parametrize("name", GATES)
def test_old_versions_and_types(name: str) -> None:
    given = inputs(name, 1)
    new = ours(name, given, 22)
    np.testing.assert_array_equal(ours(name, given, 1, output_sequence=1), new)
    half = ours(name, [x if x is None else x.astype(np.float16) for x in given], 22)
    assert half.dtype == np.float16
    np.testing.assert_allclose(half.astype(np.float32), new, atol=1e-2)
    empty = ours(name, [given[0][:0], *given[1:]], 22, outputs=2)
    assert empty[0].shape == (0, 1, BATCH, HIDDEN)
    np.testing.assert_array_equal(empty[1], given[5])


@pytest.mark.parametrize(
    ("change", "attributes", "message"),
    [
        ({}, {"direction": "up"}, "direction='up'"),
        ({}, {"hidden_size": 7}, "hidden_size=7"),
        ({}, {"activations": ["Sin"]}, "'Sin' is not an activation"),
        ({1: data(1, 2, 9)}, {}, "input W"),
        ({4: np.array([1, 2, 6], np.int32)}, {}, "sequence_lens"),
        ({5: data(1, 1, 2)}, {}, "initial_h"),
        ({0: data(3, 4)}, {}, "3 axes"),
    ],
)
def test_refusals(change: Any, attributes: Any, message: str) -> None:
    given = [change.get(n, x) for n, x in enumerate(inputs("RNN", 1))]
    with pytest.raises(ValueError, match=message):
        ours("RNN", given, 22, **attributes)
