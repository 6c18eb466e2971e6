"""GroupQueryAttention and SparseAttention against onnxruntime.

Rows of a cache past an entry's tokens, and outputs of padding queries, are not specified: they are left out.
What onnxruntime's CPU build lacks (q_norm_weight, float8 caches, bfloat16) is checked against the same operator
on inputs that were prepared in NumPy.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from contrib_node import BF16, rand, run, run_ort

import epkit

H, G, D = 4, 2, 16


def rotary(pairs: int = D // 2) -> dict[str, Any]:
    angle = np.arange(32)[:, None] * 0.7 ** np.arange(pairs)
    return {"cos": np.cos(angle).astype(np.float32), "sin": np.sin(angle).astype(np.float32)}


def ids(*rows: Any) -> np.ndarray:
    return np.array(rows)


def case(
    length: int, total: int, tokens: list[int], past: Any = None, *, kv: int | None = None, **more: Any
) -> Any:
    """Inputs of a step of ``length`` tokens, after which entry b has ``tokens[b]`` of them."""
    batch, fresh = len(tokens), length if kv is None else kv
    packed = more.pop("packed", False)
    if isinstance(past, int):
        past = tuple(rand(batch, G, past, D, seed=s) for s in (3, 4))
    inputs: dict[str, Any] = {
        "q": rand(batch, length, (H + 2 * G) * D if packed else H * D),
        "k": None if packed else rand(batch, fresh, G * D, seed=1),
        "v": None if packed else rand(batch, fresh, G * D, seed=2),
        "past_k": past and past[0],
        "past_v": past and past[1],
        "seqlens_k": np.array(tokens, np.int32) - 1,
        "total": np.array([total], np.int32),
        **dict.fromkeys(
            ("cos", "sin", "ids", "bias", "sink", "k_scale", "v_scale", "q_norm", "k_norm", "new")
        ),
    }
    assert set(more) <= set(inputs), more
    return inputs | more


def specified(inputs: Any, outputs: list[Any], window: int = 0) -> list[Any]:
    """The outputs with zeros where nothing is specified."""
    y, *rest = [np.array(o, dtype=np.float64) for o in outputs]
    tokens, length = inputs["seqlens_k"] + 1, inputs["q"].shape[1]
    new = np.minimum(tokens, length) if inputs["new"] is None else inputs["new"]
    for b, count in enumerate(new):
        y[b, count:] = 0
        for present in rest[:2]:
            kept, capacity = tokens[b], present.shape[2]
            if window and kept > capacity:
                group = capacity - window + 1
                kept -= group * -(-(kept - capacity) // group)
            present[b, :, kept:] = 0
        for scores in rest[2:]:
            scores[b, :, count:] = 0
    return [y, *rest]


def same(inputs: Any, n_outputs: int = 3, *, tolerance: float = 1e-5, **how: Any) -> None:
    how = {"num_heads": H, "kv_num_heads": G} | how
    window = how["local_window_size"] if how.get("sliding_window_cache") else 0
    ours, theirs = (
        specified(inputs, f("GroupQueryAttention", inputs, n_outputs, **how), window) for f in (run, run_ort)
    )
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=f"output {index}")


STEPS = {
    "prompt": (5, 5, [5, 5]),
    "prompt, padded": (5, 5, [5, 3]),
    "prompt into a buffer": (5, 5, [5, 5], 12),
    "one token": (1, 9, [9, 9], 8),
    "one token, buffer, padded": (1, 9, [9, 6], 16),
    "one token, growing, padded": (1, 9, [9, 6], 8),
    "chunk": (3, 9, [9], 6),
    "chunk, buffer": (3, 9, [9], 16),
}


@pytest.mark.parametrize("step", STEPS)
def test_steps(step: str) -> None:
    same(case(*STEPS[step]))
    same(case(*STEPS[step], packed=True, **rotary()), do_rotary=1)
    same(case(*STEPS[step]), local_window_size=3)


def test_rotation() -> None:
    wide = {"q": rand(2, 5, 128), "k": rand(2, 5, 64), "v": rand(2, 5, 64)}
    same(case(5, 5, [5, 5], **wide, **rotary(8)), do_rotary=1)  # half of 32 features
    same(case(5, 5, [5, 5], **rotary()), do_rotary=1, rotary_interleaved=1)
    same(case(5, 5, [5, 5], **rotary(), ids=ids([3, 1, 4, 1, 5], [9, 2, 6, 5, 3])), do_rotary=1)
    same(case(1, 9, [9, 9], 8, **rotary(), ids=ids([3], [14])), do_rotary=1)


@pytest.mark.parametrize("bias", [(2, 4, 5, 5), (1, 1, 5, 5)])
def test_scores(bias: tuple[int, ...]) -> None:
    given = case(5, 5, [5, 5], bias=rand(*bias))
    same(given, scale=0.3)
    same(given, softcap=1.5)
    same(given, smooth_softmax=1)
    same(given | {"sink": rand(4)}, local_window_size=2)
    for stage in (1, 2):
        same(given, 4, qk_output=stage, softcap=1.5)


def test_not_causal() -> None:
    same(case(5, 5, [5, 3]), causal=0)
    same(case(2, 9, [9], 7), causal=0)


def test_no_new_keys() -> None:
    same(case(2, 9, [9], 9, kv=0))
    same(case(1, 9, [9, 9], 9, kv=0))


def test_padded_chunks() -> None:
    same(case(4, 12, [7, 4], 16, **rotary(), new=np.array([2, 4], np.int32)), do_rotary=1)
    same(case(4, 12, [7, 4], 16, new=np.array([0, 1], np.int32)))


@pytest.mark.parametrize("window", [4, 6])
def test_windowed_caches(window: int) -> None:
    how = {"sliding_window_cache": 1, "local_window_size": window, "do_rotary": 1}
    same(case(1, 9, [9, 9], 6, **rotary()), **how)
    same(case(1, 9, [9, 5], 6, **rotary(), bias=rand(2, 4, 1, 9)), **how)
    same(case(9, 9, [9, 9], 6, **rotary()), **how)
    same(case(3, 12, [12], 6, **rotary()), **how)
    same(case(3, 12, [12, 6], 6, **rotary(), new=np.array([2, 3], np.int32)), **how)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("kind", ["PER_TENSOR", "PER_CHANNEL"])
def test_quantised_caches(dtype: Any, kind: str) -> None:
    scale = np.abs(rand(1, G, 1, D) if kind == "PER_CHANNEL" else rand(1)) * np.float32(0.1) + np.float32(
        0.02
    )
    bits, size = (8, D) if dtype == np.int8 else (4, D // 2)
    past = tuple(np.random.default_rng(s).integers(0, 100, (1, G, 8, size)).astype(dtype) for s in (0, 1))
    how = {"k_quant_type": kind, "v_quant_type": kind, "kv_cache_bit_width": bits}
    for step in ((1, 9, [9]), (8, 8, [8]), (2, 8, [8])):
        same(case(*step, past, k_scale=scale, v_scale=scale), tolerance=1e-4, **how)


def test_float8_caches() -> None:
    scale = np.array([0.05], np.float32)
    past = tuple((rand(1, G, 4, D, seed=s) / scale).astype(ml_dtypes.float8_e4m3fn) for s in (3, 4))
    inputs = case(2, 6, [6], past, k_scale=scale, v_scale=scale)
    how = {"num_heads": H, "kv_num_heads": G}
    y, key, _ = run(
        "GroupQueryAttention", inputs, 3, k_quant_type="PER_TENSOR", v_quant_type="PER_TENSOR", **how
    )
    stored = (inputs["k"].reshape(1, 2, G, D).swapaxes(1, 2) / scale).astype(ml_dtypes.float8_e4m3fn)
    np.testing.assert_array_equal(key[:, :, 4:].astype(float), stored.astype(float))
    plain = case(2, 6, [6], tuple(p.astype(np.float32) * scale for p in past))
    plain["k"] = (stored.astype(np.float32) * scale).swapaxes(1, 2).reshape(1, 2, G * D)
    v = (inputs["v"] / scale).astype(ml_dtypes.float8_e4m3fn)
    plain["v"] = v.astype(np.float32) * scale
    np.testing.assert_allclose(y, run("GroupQueryAttention", plain, **how)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("of_q", ["qk_norm_epsilon", "q_norm_epsilon"])
def test_norms_before_the_rotation(of_q: str) -> None:
    def normed(x: Any, weight: Any, epsilon: float) -> Any:
        heads = x.reshape(*x.shape[:2], -1, D)
        y = heads / np.sqrt((heads**2).mean(-1, keepdims=True) + epsilon) * weight
        return y.reshape(x.shape).astype(np.float32)

    wq, wk = rand(D), rand(D, seed=1)
    inputs = case(5, 5, [5, 5], **rotary(), q_norm=wq, k_norm=wk)
    plain = case(5, 5, [5, 5], **rotary())
    plain |= {"q": normed(plain["q"], wq, 0.1), "k": normed(plain["k"], wk, 0.2)}
    how = {"num_heads": H, "kv_num_heads": G, "do_rotary": 1}
    ours = run("GroupQueryAttention", inputs, 3, **{of_q: 0.1}, k_norm_epsilon=0.2, **how)
    for a, b in zip(ours, run("GroupQueryAttention", plain, 3, **how), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, BF16])
def test_half_precision(dtype: Any) -> None:
    inputs = case(3, 9, [9], 6, **rotary())
    half = {k: v.astype(dtype) if v is not None and v.dtype == np.float32 else v for k, v in inputs.items()}
    if dtype == np.float16:
        same(half, do_rotary=1, tolerance=4e-3)
    how = {"num_heads": H, "kv_num_heads": G, "do_rotary": 1}
    y, z = (run("GroupQueryAttention", given, **how)[0].astype(np.float32) for given in (half, inputs))
    np.testing.assert_allclose(y, z, atol=4e-3 if dtype == np.float16 else 4e-2)


def test_blocks_of_queries_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epkit_contrib._attend.MOST_SCORES", 50)
    same(case(5, 5, [5, 5], bias=rand(2, 4, 5, 5)), 4, qk_output=2)


@pytest.mark.parametrize(
    ("change", "how", "message"),
    [
        ({"seqlens_k": np.array([9, 9], np.int32)}, {}, "total_sequence_length=5"),
        ({"seqlens_k": np.array([-2, 2], np.int32)}, {}, "seqlens_k="),
        ({}, {"kv_num_heads": 3}, "kv_num_heads=3"),
        ({"bias": rand(2, 4, 5, 3)}, {}, "attention_bias of shape"),
        ({"past_k": rand(2, 2, 4, 8), "past_v": rand(2, 2, 4, 8)}, {}, "past_key"),
        ({}, {"do_rotary": 1}, "cos_cache"),
        ({}, {"local_window_size": 0}, "local_window_size=0"),
        ({"sink": rand(3)}, {}, "head_sink of shape"),
    ],
)
def test_refusals(change: dict[str, Any], how: dict[str, Any], message: str) -> None:
    with pytest.raises(epkit.EpkitError, match=message):
        run(
            "GroupQueryAttention",
            case(5, 5, [5, 5]) | change,
            3,
            **({"num_heads": H, "kv_num_heads": G} | how),
        )


def layouts() -> dict[str, Any]:
    """Two layouts of 4 x 4 blocks, in compressed rows."""
    return {
        "rows": np.array([[0, 1, 3, 5, 8], [0, 1, 3, 6, 9]], np.int32),
        "columns": np.array([[0, 0, 1, 1, 2, 1, 2, 3, -1], [0, 0, 1, 0, 1, 2, 0, 2, 3]], np.int32),
    }


def sparse(length: int, tokens: list[int]) -> dict[str, Any]:
    batch, angle = len(tokens), np.arange(64)[:, None] * 0.7 ** np.arange(D // 2)
    return {
        "q": rand(batch, length, H * D),
        "k": rand(batch, length, G * D, seed=1),
        "v": rand(batch, length, G * D, seed=2),
        "past_k": rand(batch, G, 64, D, seed=3),
        "past_v": rand(batch, G, 64, D, seed=4),
        **layouts(),
        "total": np.array([max(tokens)], np.int32),
        "tokens": np.array(tokens, np.int32),
        "cos": np.cos(angle).astype(np.float32),
        "sin": np.sin(angle).astype(np.float32),
    }


SPARSE = {"num_heads": H, "kv_num_heads": G, "sparse_block_size": 16}


@pytest.mark.parametrize(
    ("length", "tokens"), [(40, [40, 40]), (1, [60]), (1, [17]), (1, [64, 64]), (3, [40])]
)
def test_sparse_attention(length: int, tokens: list[int]) -> None:
    inputs = sparse(length, tokens)
    packed = inputs | {"q": np.concatenate([inputs[n] for n in "qkv"], axis=-1), "k": None, "v": None}
    for given, more in ((inputs, {}), (packed, {"do_rotary": 1}), (inputs, {"do_rotary": 1, "scale": 0.1})):
        ours = run("SparseAttention", given, 3, **SPARSE, **more)
        shared = {"y1": "past_k", "y2": "past_v"}
        theirs = run_ort("SparseAttention", given, 3, shared=shared, **SPARSE, **more)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("length", "tokens"), [(40, [40, 35]), (1, [60, 17])])
def test_sparse_attention_of_unequal_entries_is_that_of_each(length: int, tokens: list[int]) -> None:
    # onnxruntime's CPU kernel reads memory that it has not written in this case.
    inputs = sparse(length, tokens)
    both = run("SparseAttention", inputs, 3, do_rotary=1, **SPARSE)
    for b, count in enumerate(tokens):
        new = min(count, length)
        alone = {k: v[b : b + 1] if k in ("past_k", "past_v", "tokens") else v for k, v in inputs.items()}
        alone |= {k: inputs[k][b : b + 1, :new] for k in "qkv"} | {"total": np.array([count], np.int32)}
        y, *presents = run("SparseAttention", alone, 3, do_rotary=1, **SPARSE)
        np.testing.assert_allclose(both[0][b, :new], y[0], rtol=1e-4, atol=1e-5)
        for a, z in zip(both[1:], presents, strict=True):
            np.testing.assert_array_equal(a[b, :, :count], z[0, :, :count])
