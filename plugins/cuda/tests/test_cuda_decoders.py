"""Caches and com.microsoft's attention: the sources on the host, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_standin import StandIn
from onnx import helper
from test_cuda_attention import model_of, ours, theirs
from test_cuda_kernels import data

import epkit

H, G, D = 4, 2, 16


def int32(*values: int) -> Any:
    return np.array(values, np.int32)


STEPS: dict[str, tuple[int, int, list[int], int | None]] = {
    "prompt": (5, 5, [5, 3], None),
    "prompt into a buffer": (5, 5, [5, 5], 12),
    "one token": (1, 9, [9], 8),
    "one token of each, padded": (1, 9, [9, 6], 16),
    "growing": (1, 9, [9, 6], 8),
    "chunk": (3, 9, [9], 6),
}
"""Fresh tokens, tokens after the step at most and of each entry, rows of the caches before."""


def inputs(step: str, *, rotary: int = 0, packed: bool = False, dtype: Any = np.float32) -> dict[str, Any]:
    length, total, tokens, kept = STEPS[step]
    batch = len(tokens)
    angle = np.arange(32)[:, None] * 0.7 ** np.arange(rotary)
    found: dict[str, Any] = {"q": data(batch, length, (H + 2 * G * packed) * D, dtype=dtype)}
    if not packed:
        found |= {
            name: data(batch, length, G * D, seed=seed, dtype=dtype) for seed, name in ((1, "k"), (2, "v"))
        }
    if kept is not None:
        found |= {
            name: data(batch, G, kept, D, seed=seed, dtype=dtype) for seed, name in ((3, "pk"), (4, "pv"))
        }
    found |= {"lengths": int32(*tokens) - 1, "most": int32(total)}
    if rotary:
        found |= {"cos": np.cos(angle).astype(dtype), "sin": np.sin(angle).astype(dtype)}
    return found


ORDER = ["q", "k", "v", "pk", "pv", "lengths", "most", "cos", "sin", "ids", "bias"]


def compare(gpu: StandIn, feeds: dict[str, Any], tolerance: float = 1e-5, **options: Any) -> None:
    """What is specified of the outputs agrees; rows past an entry's tokens are not."""
    names = [name if name in feeds else "" for name in ORDER]
    while not names[-1]:
        names.pop()
    options = {"num_heads": H, "kv_num_heads": G, **options}
    node = helper.make_node(
        "GroupQueryAttention", names, ["y", "ok", "ov"], domain="com.microsoft", **options
    )
    model = model_of(node, feeds, {"y": 3, "ok": 4, "ov": 4})
    found, want = list(ours(model, feeds).values()), theirs(model, feeds)
    for index, (have, wanted) in enumerate(zip(found, want, strict=True)):
        assert have.shape == wanted.shape
        for b, last in enumerate(feeds["lengths"]):
            rows = slice(None, last + 1)
            pair = (have[b, rows], wanted[b, rows]) if not index else (have[b, :, rows], wanted[b, :, rows])
            np.testing.assert_allclose(*pair, rtol=tolerance, atol=tolerance, err_msg=f"output {index}")
    assert gpu.implicit_reads == 0


@pytest.mark.parametrize("step", STEPS)
def test_grouped_queries_step_by_step(gpu: StandIn, step: str) -> None:
    compare(gpu, inputs(step))
    compare(gpu, inputs(step, rotary=D // 2, packed=True), do_rotary=1)
    compare(gpu, inputs(step), local_window_size=3)


def test_rotations_biases_and_narrow_types(gpu: StandIn) -> None:
    compare(gpu, inputs("prompt", rotary=8), do_rotary=1, rotary_interleaved=1)
    ids = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    compare(gpu, {**inputs("prompt", rotary=8), "ids": ids}, do_rotary=1)
    compare(gpu, {**inputs("growing", rotary=8), "ids": np.array([[3], [14]])}, do_rotary=1)
    for shape in ((2, H, 5, 5), (1, 1, 5, 5)):
        compare(gpu, {**inputs("prompt into a buffer"), "bias": data(*shape, seed=5)}, softcap=1.5, scale=0.3)
    compare(gpu, inputs("prompt"), causal=0)
    compare(gpu, inputs("chunk", rotary=8, dtype=np.float16), 4e-3, do_rotary=1)


def test_wrong_lengths_and_places_are_told(gpu: StandIn) -> None:
    feeds = inputs("one token of each, padded", rotary=8)
    for wrong in ({"lengths": int32(8, 40)}, {"ids": np.array([[3], [32]])}):
        with pytest.raises(epkit.errors.RunError, match="out of range"):
            compare(gpu, {**feeds, **wrong}, do_rotary=1)
    with pytest.raises(epkit.errors.RunError, match="past_key of shape"):
        compare(gpu, {**feeds, "pk": feeds["pk"][:, :1]})


MULTI = {
    "plain": {},
    "with everything": {"bias": data(3 * H * D, seed=6), "mask": int32(*[1] * 9, *[0] * 3, *[1] * 6).reshape(2, 9),
                        "added": data(1, H, 5, 9, seed=7)},
}  # fmt: skip


@pytest.mark.parametrize("case", MULTI)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_several_heads(gpu: StandIn, case: str, dtype: Any) -> None:
    more = {n: x.astype(dtype) if x.dtype == np.float32 else x for n, x in MULTI[case].items()}
    feeds = {n: data(2, 5, H * D, seed=s, dtype=dtype) for s, n in enumerate("qkv")} | more
    if case != "plain":
        feeds |= {n: data(2, H, 4, D, seed=s, dtype=dtype) for s, n in ((3, "pk"), (4, "pv"))}
    order = ["q", "k", "v", "bias", "mask", "added", "pk", "pv"]
    names = [name if name in feeds else "" for name in order] if more else order[:3]
    outputs = {"y": 3, **({"ok": 4, "ov": 4} if more else {})}
    node = helper.make_node(
        "MultiHeadAttention",
        names,
        list(outputs),
        domain="com.microsoft",
        num_heads=H,
        unidirectional=int(not more),
    )
    model = model_of(node, feeds, outputs)
    tolerance = 2e-5 if dtype == np.float32 else 4e-3
    for have, want in zip(ours(model, feeds).values(), theirs(model, feeds), strict=True):
        np.testing.assert_allclose(have, want, rtol=tolerance, atol=tolerance)


def test_both_caches_are_one_kernel(gpu: StandIn) -> None:
    shapes = {"q": (2, H, 1, D), "k": (2, G, 1, D), "v": (2, G, 1, 8), "pk": (2, G, 6, D), "pv": (2, G, 6, 8)}
    feeds = {name: data(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}
    node = helper.make_node("Attention", ["q", "k", "v", "", "pk", "pv"], ["y", "ok", "ov"])
    found = ours(model_of(node, feeds, {"y": 4, "ok": 4, "ov": 4}), feeds)
    np.testing.assert_array_equal(found["ok"], np.concatenate([feeds["pk"], feeds["k"]], 2))
    np.testing.assert_array_equal(found["ov"], np.concatenate([feeds["pv"], feeds["v"]], 2))
    assert gpu.launches == 2
