"""Reductions, and what goes along one axis."""

from __future__ import annotations

from functools import partial

from .step import Lowering, Step, View, counted, longs

NUMBERS = ("float32", "float64", "int32", "int64")
RULES = (
    *("ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin"),
    *("ReduceL1", "ReduceSumSquare", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp"),
)
FLOATS_ONLY = ("ReduceL2", "ReduceLogSum")


def reduce(view: View, rule: int) -> Step | None:
    """The axes are an attribute at first, an input later."""
    name, kind = view.op, view.type(0)
    if kind not in NUMBERS or (name in FLOATS_ONLY and not kind.startswith("float")):
        return None
    if name == "ReduceLogSumExp" and kind != "float32":
        return None
    since = 13 if name == "ReduceSum" else 18
    keep = int(view.attributes.get("keepdims", 1))
    if view.opset >= since:
        noop = int(view.attributes.get("noop_with_empty_axes", 0))
        if noop and name not in ("ReduceSum", "ReduceMean", "ReduceProd", "ReduceMax", "ReduceMin"):
            return None
        return view.step("reduce", longs(rule, keep, noop, 0))
    axes = view.attributes.get("axes")
    return view.step("reduce", longs(rule, keep, 0) + counted(axes or ()), view.inputs[:1])


def arg_extreme(view: View, greatest: int) -> Step | None:
    """The position of the greatest or least element."""
    if view.type(0) not in NUMBERS:
        return None
    names = (("axis", 0), ("keepdims", 1), ("select_last_index", 0))
    return view.step("arg_extreme", longs(*(int(view.attributes.get(*n)) for n in names), greatest))


def cumulated(view: View, products: int) -> Step | None:
    """Running sums or products."""
    if view.type(0) not in NUMBERS or view.type(1) not in ("int32", "int64"):
        return None
    flags = (int(view.attributes.get(name, 0)) for name in ("exclusive", "reverse"))
    return view.step("cum_sum", longs(*flags, products))


def top_k(view: View) -> Step | None:
    """The k best along an axis, in order; K is an input from opset 10 on."""
    if view.opset < 10 or view.type(0) not in NUMBERS:
        return None
    axis, largest = (int(view.attributes.get(n, d)) for n, d in (("axis", -1), ("largest", 1)))
    return view.step("top_k", longs(axis, largest))


REDUCE: dict[tuple[str, str], Lowering] = {
    **{("", name): partial(reduce, rule=rule) for rule, name in enumerate(RULES)},
    ("", "ArgMax"): partial(arg_extreme, greatest=1),
    ("", "ArgMin"): partial(arg_extreme, greatest=0),
    ("", "CumSum"): partial(cumulated, products=0),
    ("", "CumProd"): partial(cumulated, products=1),
    ("", "TopK"): top_k,
}
