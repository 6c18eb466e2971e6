"""If, Loop and Scan, run by the runtime itself over host values.

Meanings: ONNX If-1 to 25, Loop-1 to 25, Scan-8 (with a batch axis) and Scan-9 to 25.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ..backend.subgraph import element_type
from ..dtypes import numpy_dtype
from ..errors import RunError, Where

Body = Callable[[str, Sequence[Any]], list[Any]]


def run_if(node: ir.Node, inputs: Sequence[Any], body: Body, opset: int) -> list[Any]:
    """``then_branch()`` if the condition (one bool) holds, else ``else_branch()``."""
    del opset
    return body("then_branch" if _truth(inputs[0], node) else "else_branch", ())


def run_loop(node: ir.Node, inputs: Sequence[Any], body: Body, opset: int) -> list[Any]:
    """At most M trips while the condition holds.

    Returns the carried values, then the stacked scan outputs.
    """
    del opset
    limit = None if inputs[0] is None else int(np.asarray(inputs[0]).reshape(()))
    going = True if inputs[1] is None else _truth(inputs[1], node)
    carried = list(inputs[2:])
    count = len(carried)
    scans: list[list[Any]] = [[] for _ in range(len(node.outputs) - count)]
    trip = 0
    while going and (limit is None or trip < limit):
        condition, *results = body("body", (np.array(trip, np.int64), np.array(going), *carried))
        going = _truth(condition, node)
        carried = results[:count]
        for collected, item in zip(scans, results[count:], strict=True):
            collected.append(item)
        trip += 1
    results_of_body = node.attributes["body"].as_graph().outputs[1 + count :]
    return [
        *carried,
        *(_stack(items, value, 0, node) for items, value in zip(scans, results_of_body, strict=True)),
    ]


def run_scan(node: ir.Node, inputs: Sequence[Any], body: Body, opset: int) -> list[Any]:
    """Iterate over slices of the scan inputs, carrying state; Scan-8 does so for each batch entry."""
    graph = node.attributes["body"].as_graph()
    n_scan = node.attributes["num_scan_inputs"].as_int()
    if opset < 9:
        return _scan_batched(node, inputs, n_scan, body)
    n_state = len(inputs) - n_scan
    axes = _numbers(node, "scan_input_axes", n_scan)
    backwards = _numbers(node, "scan_input_directions", n_scan)
    n_out = len(node.outputs) - n_state
    out_axes = _numbers(node, "scan_output_axes", n_out)
    out_backwards = _numbers(node, "scan_output_directions", n_out)
    sequences = [
        np.moveaxis(np.asarray(x), axis, 0)[:: -1 if back else 1]
        for x, axis, back in zip(inputs[n_state:], axes, backwards, strict=True)
    ]
    state, scans = _scan(node, list(inputs[:n_state]), sequences, body)
    results = []
    for items, value, axis, back in zip(scans, graph.outputs[n_state:], out_axes, out_backwards, strict=True):
        results.append(_stack(items[:: -1 if back else 1], value, axis, node))
    return [*state, *results]


def _scan(
    node: ir.Node, state: list[Any], sequences: Sequence[Any], body: Body
) -> tuple[list[Any], list[list[Any]]]:
    lengths = {len(sequence) for sequence in sequences}
    if len(lengths) != 1:
        raise RunError(
            f"the scan inputs of {node.name} have different lengths: {sorted(lengths)}",
            where=Where(node=str(node.name)),
        )
    n_out = len(node.outputs) - len(state)
    scans: list[list[Any]] = [[] for _ in range(n_out)]
    for step in range(lengths.pop()):
        results = body("body", (*state, *(sequence[step] for sequence in sequences)))
        for collected, item in zip(scans, results[len(state) :], strict=True):
            collected.append(item)
        state = results[: len(state)]
    return state, scans


def _scan_batched(node: ir.Node, inputs: Sequence[Any], n_scan: int, body: Body) -> list[Any]:
    """Scan-8: axis 0 of everything is the batch, axis 1 of scan inputs the sequence; lengths may differ."""
    lengths, values = inputs[0], inputs[1:]
    n_state = len(values) - n_scan
    backwards = _numbers(node, "directions", n_scan)
    batch, longest = np.asarray(values[n_state]).shape[:2]
    rows = []
    for b in range(batch):
        length = longest if lengths is None else int(np.asarray(lengths)[b])
        sequences = [
            np.asarray(x)[b, :length][:: -1 if back else 1]
            for x, back in zip(values[n_state:], backwards, strict=True)
        ]
        state, scans = _scan(node, [np.asarray(x)[b] for x in values[:n_state]], sequences, body)
        rows.append([*state, *(_padded(items, longest) for items in scans)])
    return [np.stack(column) for column in zip(*rows, strict=True)]


def _padded(items: list[Any], length: int) -> Any:
    stacked = np.stack(items)
    missing = np.zeros((length - len(items), *stacked.shape[1:]), stacked.dtype)
    return np.concatenate((stacked, missing))


def _numbers(node: ir.Node, name: str, count: int) -> tuple[int, ...]:
    attribute = node.attributes.get(name)
    return (0,) * count if attribute is None else tuple(attribute.as_ints())


def _truth(value: Any, node: ir.Node) -> bool:
    array = np.asarray(value)
    if array.size != 1:
        raise RunError(
            f"the condition of {node.op_type} must be one bool, and has shape {list(array.shape)}",
            where=Where(node=str(node.name)),
            remedy="reduce the condition to a scalar before this node",
        )
    return bool(array.reshape(()))


def _stack(items: list[Any], value: ir.Value, axis: int, node: ir.Node) -> Any:
    """Stack what the trips gave.

    For no trips, an empty array whose shape comes from the body's inferred output.
    """
    if not items:
        kind = element_type(value)
        dims = [] if value.shape is None else [d if isinstance(d, int) else 0 for d in value.shape]
        dims.insert(axis if axis >= 0 else len(dims) + 1 + axis, 0)
        return np.empty(dims, numpy_dtype(kind) if kind else np.dtype(np.float32))
    if len({np.shape(item) for item in items}) > 1:
        shapes = sorted({tuple(np.shape(item)) for item in items})
        raise RunError(
            f"the trips of {node.name} gave {value.name} different shapes: {shapes[:4]}",
            where=Where(node=str(node.name)),
        )
    return np.stack(items, axis)


CONTROL: dict[str, Callable[[ir.Node, Sequence[Any], Body, int], list[Any]]] = {
    "If": run_if,
    "Loop": run_loop,
    "Scan": run_scan,
}
