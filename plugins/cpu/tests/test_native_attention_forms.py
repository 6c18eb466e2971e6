"""Attention and rotary embedding as nodes: every form natively, and what does not fit portably."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from native_node import Array, agree, native, one_node, portable
from onnx import TensorProto

import epkit
from epkit_cpu.native import isas

MS = "com.microsoft"
FORMS = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
pytestmark = pytest.mark.skipif(not isas(), reason="the package was built without a compiler")
every_isa = pytest.mark.parametrize("isa", isas() or ("none",))


def normal(generator: np.random.Generator, *shape: int) -> Array:
    return generator.standard_normal(shape).astype(np.float32)


@every_isa
@FORMS
@given(data=st.data())
def test_attention_of_the_standard(isa: str, data: st.DataObject) -> None:
    pick = data.draw
    generator = np.random.default_rng(pick(st.integers(0, 99)))
    batch, kv, share = pick(st.integers(1, 2)), pick(st.integers(1, 2)), pick(st.sampled_from([1, 3]))
    queries, keys, past = pick(st.integers(1, 6)), pick(st.integers(1, 9)), pick(st.integers(0, 4))
    size, value_size = pick(st.sampled_from([2, 8, 17])), pick(st.sampled_from([3, 16]))
    split, cache = pick(st.booleans()), pick(st.sampled_from(["none", "made", "grows", "lengths"]))
    heads, total = kv * share, keys + (past if cache == "grows" else 0)

    def part(n: int, rows: int, width: int) -> Array:
        return normal(generator, *((batch, n, rows, width) if split else (batch, rows, n * width)))

    inputs: list[Array | None] = [
        part(heads, queries, size),
        part(kv, keys, size),
        part(kv, keys, value_size),
    ]
    kind = pick(st.sampled_from(["none", "float", "bool"]))
    dims = [pick(st.sampled_from([1, n])) for n in (batch, heads, queries)]
    columns = max(2, total - pick(st.integers(0, 1))) if total > 1 else total
    shape = (*dims, columns)[pick(st.integers(0, 2)) :]
    masks = {"none": None, "float": normal(generator, *shape), "bool": generator.random(shape) < 0.7}
    inputs.append(masks[kind])
    if cache == "grows":
        inputs += [normal(generator, batch, kv, past, size), normal(generator, batch, kv, past, value_size)]
    elif cache == "lengths":
        inputs += [None, None, generator.integers(0, keys + 1, batch)]
    how: dict[str, Any] = {"is_causal": pick(st.integers(0, 1)), "softcap": pick(st.sampled_from([0.0, 2.0]))}
    if pick(st.booleans()):
        how["scale"] = pick(st.sampled_from([0.3, -0.5]))
    if not split:
        how |= {"q_num_heads": heads, "kv_num_heads": kv}
    opset = 24
    if pick(st.booleans()):
        opset = 25
        how |= {f"{side}_window_size": pick(st.integers(-1, 4)) for side in ("left", "right")}
    made = 3 if cache in ("made", "grows") else 1
    model, feeds = one_node("Attention", inputs, made, opset=opset, kind=TensorProto.FLOAT, **how)
    agree(model, feeds, isa, rtol=1e-4, atol=1e-5)


@every_isa
@FORMS
@given(data=st.data())
def test_multi_head_attention(isa: str, data: st.DataObject) -> None:
    pick = data.draw
    generator = np.random.default_rng(pick(st.integers(0, 99)))
    batch, heads, size = pick(st.integers(1, 2)), pick(st.integers(1, 3)), pick(st.sampled_from([4, 9]))
    queries, keys, past = pick(st.integers(1, 4)), pick(st.integers(1, 5)), pick(st.integers(1, 3))
    form, width = pick(st.sampled_from(["apart", "packed", "pairs", "there"])), heads * size
    inputs: list[Array | None] = [normal(generator, batch, queries, width), None, None]
    if form == "packed":
        keys = queries
        inputs[0] = normal(generator, batch, queries, heads, 3, size)
    elif form == "pairs":
        inputs[1] = normal(generator, batch, keys, heads, 2, size)
    elif form == "there":
        inputs[1:] = [normal(generator, batch, heads, keys, size) for _ in range(2)]
    else:
        inputs[1:] = [normal(generator, batch, keys, width) for _ in range(2)]
    grows = form == "apart" and pick(st.booleans())
    total = keys + past * grows
    inputs.append(normal(generator, 3 * width) if pick(st.booleans()) and form != "there" else None)
    masks = [
        None,
        generator.integers(0, total + 1, batch).astype(np.int32),
        generator.integers(0, 2, (batch, total)).astype(np.int32),
        generator.integers(0, 2, (batch, queries, total)).astype(np.int32),
    ]
    inputs.append(masks[pick(st.integers(0, 3))])
    bias = normal(
        generator, pick(st.sampled_from([1, batch])), pick(st.sampled_from([1, heads])), queries, total
    )
    inputs.append(bias if pick(st.booleans()) else None)
    if grows:
        inputs += [normal(generator, batch, heads, past, size) for _ in range(2)]
    how: dict[str, Any] = {
        "num_heads": heads,
        "unidirectional": pick(st.integers(0, 1)),
        "mask_filter_value": -1e4,
    }
    made = 3 if grows or pick(st.booleans()) else 1
    model, feeds = one_node("MultiHeadAttention", inputs, made, domain=MS, **how)
    agree(model, feeds, isa, rtol=1e-4, atol=1e-5)


@every_isa
@FORMS
@given(data=st.data())
def test_group_query_attention(isa: str, data: st.DataObject) -> None:
    """Outputs of rows past an entry's tokens are not specified: all entries have all rows."""
    pick = data.draw
    generator = np.random.default_rng(pick(st.integers(0, 99)))
    batch, kv, share, size = pick(st.integers(1, 2)), pick(st.integers(1, 2)), pick(st.integers(1, 3)), 8
    length, before, spare = pick(st.integers(1, 4)), pick(st.integers(0, 5)), pick(st.integers(0, 2))
    heads, total = kv * share, length + before
    packed = pick(st.booleans())
    if packed:
        inputs: list[Array | None] = [normal(generator, batch, length, (heads + 2 * kv) * size), None, None]
    else:
        inputs = [normal(generator, batch, length, n * size) for n in (heads, kv, kv)]
    has_past = before > 0 or pick(st.booleans())
    inputs += [normal(generator, batch, kv, before + spare, size) if has_past else None for _ in range(2)]
    shorter = generator.integers(0, before + 1, batch) if length == 1 else np.zeros(batch, np.int64)
    inputs += [(total - 1 - shorter).astype(np.int32), np.array([total], np.int32)]
    turns = pick(st.booleans())
    angles = np.arange(24)[:, None] * 0.7 ** np.arange(pick(st.sampled_from([2, size // 2])))
    inputs += [f(angles).astype(np.float32) if turns else None for f in (np.cos, np.sin)]
    ids = np.broadcast_to(np.arange(before, total), (batch, length)).copy()
    inputs.append(ids if turns and pick(st.booleans()) else None)
    inputs.append(
        normal(generator, 1, pick(st.sampled_from([1, heads])), length, total)
        if pick(st.booleans())
        else None
    )
    inputs.append(normal(generator, heads) if pick(st.booleans()) else None)
    how: dict[str, Any] = {
        "num_heads": heads,
        "kv_num_heads": kv,
        "do_rotary": int(turns),
        "softcap": pick(st.sampled_from([0.0, 2.0])),
        "rotary_interleaved": pick(st.integers(0, 1)),
        "smooth_softmax": pick(st.sampled_from([-1, 0, 1])),
        "local_window_size": pick(st.sampled_from([-1, 2])),
    }
    model, feeds = one_node("GroupQueryAttention", inputs, 3, domain=MS, **how)
    agree(model, feeds, isa, rtol=1e-4, atol=1e-5)


@every_isa
@FORMS
@given(data=st.data())
def test_rotary_embedding(isa: str, data: st.DataObject) -> None:
    pick = data.draw
    generator = np.random.default_rng(pick(st.integers(0, 99)))
    batch, heads, rows = pick(st.integers(1, 2)), pick(st.integers(1, 3)), pick(st.integers(1, 4))
    size, turned = 12, pick(st.sampled_from([0, 4, 10]))
    split, given_ids, half = pick(st.booleans()), pick(st.booleans()), (turned or size) // 2
    x = normal(generator, *((batch, heads, rows, size) if split else (batch, rows, heads * size)))
    ids = generator.integers(0, 9, (batch, rows))
    how: dict[str, Any] = {
        "interleaved": pick(st.integers(0, 1)),
        "rotary_embedding_dim": turned,
        "num_heads": heads,
    }
    caches = [normal(generator, *((9, half) if given_ids else (batch, rows, half))) for _ in range(2)]
    model, feeds = one_node("RotaryEmbedding", [x, *caches, *([ids] if given_ids else [])], opset=23, **how)
    agree(model, feeds, isa)
    place = np.array([pick(st.integers(0, 4))]) if pick(st.booleans()) else ids
    caches = [normal(generator, 9, half) for _ in range(2)]
    model, feeds = one_node("RotaryEmbedding", [x, place, *caches], domain=MS, **how)
    agree(model, feeds, isa)


def test_positions_without_angles_are_an_error() -> None:
    x, cache = np.ones((1, 2, 8), np.float32), np.ones((3, 4), np.float32)
    model, feeds = one_node("RotaryEmbedding", [x, cache, cache, np.array([[0, 3]])], opset=23, num_heads=1)
    with epkit.load(model) as session, pytest.raises(epkit.EpkitError, match="position"):
        session.run(None, feeds)


def test_a_cache_that_does_not_fit_is_an_error() -> None:
    q, past = np.ones((1, 1, 2, 8), np.float32), np.ones((1, 1, 3, 7), np.float32)
    model, feeds = one_node("Attention", [q, q, q, None, past, past], 3, opset=23)
    with epkit.load(model) as session, pytest.raises(epkit.EpkitError):
        session.run(None, feeds)


def test_no_keys_give_zeros() -> None:
    q, k = np.ones((1, 2, 3, 4), np.float32), np.ones((1, 2, 0, 4), np.float32)
    model, feeds = one_node("Attention", [q, k, k], opset=23)
    np.testing.assert_array_equal(native(model, feeds, isas()[0])["o0"], portable(model, feeds)["o0"])
