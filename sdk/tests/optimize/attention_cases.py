"""What the names stand for in the formulas of attention and of rotary embedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from drawn_arrays import SIDE, f32, floats
from hypothesis import strategies as st
from rule_instances import Draw, Given

from epkit.optimize.fuse import Fusion
from epkit.optimize.fusions import (
    attention,
    heads,
    rotary,
)


def rotated(batch: int | None) -> Callable[[Draw], Given]:
    def given_for(draw: Draw) -> Given:
        rows, heads, length, half = (draw(SIDE) for _ in range(4))
        angles = {name: floats(draw, batch or rows, length, half) for name in ("cos", "sin")}
        inputs = {"x": floats(draw, rows, heads, length, 2 * half), **angles}
        sizes = {"sizes": np.array([half, half])}
        return Given(inputs, sizes, {"split": 3, "turned": -1, "joined": 2})

    return given_for


def attended(draw: Draw) -> Given:
    batch, shared, length, total, size = (draw(SIDE) for _ in range(5))
    copies = draw(st.integers(1, 3))
    heads = shared * copies
    mask = floats(
        draw, *draw(st.sampled_from([(batch, 1, 1, total), (1, 1, length, total), (length, total)]))
    )
    constants: dict[str, Any] = {
        name: f32(draw(st.sampled_from([1.0, 0.5, 3.0])))
        for name in ("factor", "divisor", "q_factor", "q_divisor", "k_factor")
    }
    inputs = {"query": floats(draw, batch, heads, length, size), "mask": mask}
    for name in ("key", "value"):
        inputs[name] = floats(draw, batch, shared, total, size)
        if copies > 1:
            constants[f"{name}_axes"] = np.array([2])
            constants[f"{name}_expanded"] = np.array([batch, shared, copies, total, size])
            constants[f"{name}_repeated"] = np.array([batch, heads, total, size])
    repeated = ("key", "value") if copies > 1 else ()
    attributes: dict[str, Any] = {"axis": draw(st.sampled_from([-1, 3]))}
    attributes |= {f"{name}_allowzero": draw(st.sampled_from([None, 1])) for name in repeated}
    return Given(inputs, constants, attributes, never_alone=repeated)


def attended_where(draw: Draw) -> Given:
    found = attended(draw)
    *_, length, _ = found.inputs["query"].shape
    total = found.inputs["key"].shape[2]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    keep = rng.random((1, 1, length, total)) < 0.6
    fill = draw(st.sampled_from([-np.inf, -1e9, float(np.finfo(np.float32).min)]))
    is_known = fill == -1e9 or (np.isfinite(fill) and draw(st.booleans()))
    keep[..., 0] |= is_known or np.isinf(fill)  # else rows may be masked whole
    pattern = draw(st.integers(0, 1))
    mask = {"mask": keep} if pattern == 0 else {"drop": ~keep}
    inputs = {name: array for name, array in found.inputs.items() if name != "mask"}
    constants = {**found.constants, "fill": f32(fill)}
    (constants if is_known else inputs).update(mask)
    return Given(inputs, constants, found.attributes, never_alone=found.never_alone, pattern=pattern)


def with_past(draw: Draw) -> Given:
    batch, heads, length, past, size = (draw(SIDE) for _ in range(5))
    inputs = {name: floats(draw, batch, heads, length, size) for name in ("query", "key", "value")}
    inputs |= {name: floats(draw, batch, heads, past, size) for name in ("past_key", "past_value")}
    inputs["mask"] = floats(draw, 1, 1, length, past + length)
    axes = {f"{name}_joined": draw(st.sampled_from([2, -2])) for name in ("key", "value")}
    return Given(inputs, {}, {"scale": 0.5, **axes})


def shared_heads(draw: Draw) -> Given:
    batch, shared, copies, length, total, size = (draw(SIDE) for _ in range(6))
    inputs = {"query": floats(draw, batch, shared * copies, length, size)}
    inputs |= {name: floats(draw, batch, shared, total, size) for name in ("key", "value")}
    inputs["mask"] = floats(draw, *draw(st.sampled_from([(length, total), (batch, 1, length, total)])))
    constants: dict[str, Any] = {}
    for name in ("key", "value"):
        constants[f"{name}_axes"] = np.array([2])
        constants[f"{name}_expanded"] = np.array([1, 1, copies, 1, 1])
        constants[f"{name}_repeated"] = np.array([batch, shared * copies, total, size])
    attributes = {"scale": draw(st.sampled_from([0.5, None])), "is_causal": draw(st.integers(0, 1))}
    return Given(inputs, constants, attributes | {f"{name}_allowzero": None for name in ("key", "value")})


def joined(draw: Draw) -> Given:
    batch, shared, copies, length, past, size = (draw(SIDE) for _ in range(6))
    counts = {"query": shared * copies, "key": shared, "value": shared}
    inputs = {name: floats(draw, batch, length, count * size) for name, count in counts.items()}
    inputs |= {name: floats(draw, batch, shared, past, size) for name in ("past_key", "past_value")}
    constants = {f"{name}_shape": np.array([batch, length, count, size]) for name, count in counts.items()}
    constants["output_shape"] = np.array(draw(st.sampled_from([[0, 0, -1], [batch, length, -1]])))
    pattern = draw(st.integers(0, 1))
    inputs["mask"] = floats(draw, 1, 1, length, length if pattern else past + length)
    return Given(inputs, constants, {"scale": 0.5}, pattern=pattern)


def many_heads(draw: Draw) -> Given:
    batch, heads, length, total, size = (draw(SIDE) for _ in range(5))
    rows, samples = draw(st.sampled_from([1, length])), draw(st.sampled_from([1, batch]))
    inputs = {"query": floats(draw, batch, length, heads * size)}
    inputs["attention_bias"] = floats(draw, samples, 1, rows, total)
    inputs |= {name: floats(draw, batch, total, heads * size) for name in ("key", "value")}
    attributes = {"heads": heads, "kv": heads, "scale": draw(st.sampled_from([0.5, 1 / np.sqrt(size)]))}
    dims: dict[str, tuple[Any, ...]] = dict.fromkeys(("key", "value"), ("N", "T", heads * size))
    dims |= {"query": ("N", "S", heads * size), "attention_bias": (samples, 1, 1, "T")}
    return Given(inputs, {}, attributes, dims if rows == 1 and draw(st.booleans()) else {})


CASES: list[tuple[Fusion, Callable[[Draw], Given]]] = [
    (rotary.rotary_embedding, rotated(None)),
    (rotary.rotary_embedding_of_microsoft, rotated(1)),
    (rotary.rotary_embedding_by_sample, rotated(1)),
    (attention.attention, attended),
    (attention.attention_where, attended_where),
    (attention.attention_of_shared_heads, shared_heads),
    (attention.attention_with_past, with_past),
    (heads.attention_of_joined_heads, joined),
    (heads.multi_head_attention, many_heads),
]
