"""Invalid variants of every operator's cases end in our errors or in a result: no crash, no hang, no flood."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.defs import OpSchema

import epkit
from epkit import knobs
from epkit.errors import InputError

from . import families as families
from .case import Case, all_schemas, cases_of, is_removed, label
from .model import build, feeds

FEW, MANY = 2, int(os.environ.get("EPKIT_INVALID_VARIANTS", "20"))
"""How many for each operator version: always, and with ``-m slow``."""
CHUNKS = 24
SEED = os.environ.get("EPKIT_INVALID_SEED", "2026")
PATIENCE = 30.0
"""Seconds that one variant may take; all but a few take milliseconds."""
ROOM = 2 << 30
"""Bytes of address space that a child may take beyond what its parent had."""
HUGE = (-1, -2, 0, 1, 5, 1000, -1000, 1 << 31, 1 << 40, -(1 << 40), (1 << 63) - 1, -(1 << 63))
ODD = (-1.0, 0.0, 1e-30, 1e30, -1e30, float("inf"), float("nan"))
SMALL = 16
"""Inputs of up to so many numbers may be axes, pads, splits, shapes, counts."""

SCHEMAS = {label(schema): schema for schema in all_schemas() if not is_removed(schema)}


@dataclass(frozen=True)
class Variant:
    """An invalid (or just unusual) form of a case, and how the model gives its inputs."""

    name: str
    case: Case
    schema: OpSchema
    how: str


# ---- what may be wrong with an input ----


def _reshaped(x: np.ndarray, rng: random.Random) -> np.ndarray:
    """Another rank."""
    forms = [x[None], x[..., None], x.reshape(-1), x[None, None, None]]
    forms += [x[0], x[..., 0]] if x.ndim and x.size else []
    forms += [x.reshape(-1)[:1].reshape(())] if x.size else []
    return np.asarray(rng.choice(forms), x.dtype)


def _resized(x: np.ndarray, rng: random.Random) -> np.ndarray:
    """Another length of one axis, zero among them."""
    if not x.ndim or not x.size:
        return _reshaped(x, rng)
    shape = list(x.shape)
    axis = rng.randrange(x.ndim)
    shape[axis] = rng.choice([0, 1, shape[axis] - 1, shape[axis] + 1, shape[axis] * 3])
    return np.resize(x, shape)


def _filled(x: np.ndarray, rng: random.Random) -> np.ndarray:
    """One number or all of them are extreme; in integers zero among them, to divide by."""
    result = x.copy()
    where: Any = ... if not x.ndim or rng.random() < 0.4 else tuple(rng.randrange(n) for n in x.shape)
    if x.dtype.kind in "iu":
        limits = np.iinfo(x.dtype)
        result[where] = rng.choice([n for n in HUGE if limits.min <= n <= limits.max])
    elif x.dtype.kind == "f":
        with np.errstate(over="ignore"):
            result[where] = rng.choice(ODD)
    return result


def _relisted(x: np.ndarray, rng: random.Random) -> np.ndarray:
    """A list with one item too many or too few, or with none."""
    return rng.choice([x[:0], x[:-1], np.concatenate([x, x[-1:]])])


def _changes(x: np.ndarray) -> list[Callable[[np.ndarray, random.Random], np.ndarray]]:
    """What may be wrong with this input; lists of integers are most often read as axes or sizes."""
    changes = [_reshaped, _resized]
    if x.size and x.dtype.kind in "iuf":
        changes += [_filled] * (4 if x.size <= SMALL else 1)
    if x.ndim == 1 and 0 < x.size <= SMALL:
        changes += [_relisted] * 2
    return changes


def _worse_input(case: Case, schema: OpSchema, rng: random.Random) -> Case:
    inputs = list(case.inputs)
    arrays = [i for i, x in enumerate(inputs) if isinstance(x, np.ndarray | np.generic)]
    if not arrays:
        return case
    weights = [4 if np.asarray(inputs[i]).dtype.kind in "iu" else 1 for i in arrays]
    (index,) = rng.choices(arrays, weights)
    x = np.asarray(inputs[index])
    changes = [_reshaped, _resized] if schema.name == "Loop" else _changes(x)  # many turns are no error
    inputs[index] = rng.choice(changes)(x, rng)
    return replace(case, inputs=inputs, types={i: t for i, t in case.types.items() if i != index})


# ---- what may be wrong with an attribute ----


def _worse_value(value: Any, rng: random.Random) -> Any:
    """An attribute's value, of the same type as far as there is one."""
    if isinstance(value, bool | int | np.integer):
        return rng.choice(HUGE)
    if isinstance(value, float | np.floating):
        return rng.choice(ODD)
    if isinstance(value, str | bytes):
        return "bogus"
    if isinstance(value, list | tuple) and value and isinstance(value[0], int | float | str):
        items = list(value)
        items[rng.randrange(len(items))] = _worse_value(items[0], rng)
        return rng.choice([items, items, items, items + items[-1:], items[:-1] or items * 2])
    return value


def _worse_attribute(case: Case, schema: OpSchema, rng: random.Random) -> Case:
    names = sorted(set(case.attributes) - {"consumed_inputs"})
    ints = [name for name, a in schema.attributes.items() if a.type == OpSchema.AttrType.INT]
    if ints and rng.random() < 0.3:
        return replace(case, attributes={**case.attributes, rng.choice(sorted(ints)): rng.choice(HUGE)})
    if not names:
        return _worse_input(case, schema, rng)
    name = rng.choice(names)
    if rng.random() < 0.1:
        return replace(case, attributes={n: v for n, v in case.attributes.items() if n != name})
    return replace(case, attributes={**case.attributes, name: _worse_value(case.attributes[name], rng)})


# ---- variants and their models ----


def variants(schema: OpSchema, count: int) -> Iterator[Variant]:
    """A sample that is the same in every run; a larger one begins like a smaller one."""
    rng = random.Random(f"{SEED} {label(schema)}")
    cases = cases_of(schema)
    for number in range(count):
        case = rng.choice(cases)
        spoil = rng.choice(["input", "input", "attribute", "both"])
        if spoil != "attribute":
            case = _worse_input(case, schema, rng)
        if spoil != "input":
            case = _worse_attribute(case, schema, rng)
        how = rng.choice(["static", "dynamic", "dynamic", "constant"])
        yield Variant(f"{label(schema)} #{number}", case, schema, how)


def _model(variant: Variant) -> tuple[onnx.ModelProto, Mapping[str, Any]] | None:
    """The model and what to feed; None if onnx's own helpers do not let such a node be written."""
    try:
        model = build(variant.case, variant.schema)
    except (ValueError, TypeError, OverflowError, AssertionError):
        return None
    given = dict(feeds(variant.case))
    if variant.how == "constant":
        for info in list(model.graph.input):
            if isinstance(given[info.name], np.ndarray) and info.type.WhichOneof("value") == "tensor_type":
                model.graph.initializer.append(numpy_helper.from_array(given.pop(info.name), info.name))
                model.graph.input.remove(info)
    elif variant.how == "dynamic":
        for info in model.graph.input:
            if info.type.WhichOneof("value") == "tensor_type":
                info.type.tensor_type.ClearField("shape")
    return model, given


def _fault(variant: Variant) -> str:
    """What is wrong with how the variant ended; "" if nothing."""
    made = _model(variant)
    if made is None:
        return ""
    model, given = made
    try:
        session = epkit.load(model, ["cpu"], optimise="all" if variant.how == "constant" else "none")
    except epkit.EpkitError as error:
        return _fault_of(error)
    except BaseException as error:
        return f"loading raised {type(error).__name__}: {error}"
    with session:
        try:
            session.run(None, given)
        except epkit.EpkitError as error:
            if isinstance(error, InputError) or error.where.node:
                return _fault_of(error)
            return f"the error does not name the node: {error}"
        except BaseException as error:
            return f"running raised {type(error).__name__}: {error}"
    return ""


def _fault_of(error: epkit.EpkitError) -> str:
    """Even as our error: a warning is what other users would see, no memory is what they would run out of."""
    if error.what.startswith("the pass "):  # an invalid node is the node's fault, not a pass's
        return f"the optimiser failed: {error}"
    if isinstance(error.__cause__, Warning | MemoryError | SystemError | RecursionError):
        return f"{type(error.__cause__).__name__}: {error.what}"
    return ""


# ---- a child for each chunk ----


def _run_chunk(labels: Sequence[str], count: int, pipe: Connection) -> None:
    """In the child: says what it begins with, and what is wrong with how that ended."""
    with open("/proc/self/statm", encoding="ascii") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + ROOM, taken + ROOM))
    os.environ[knobs.LARGEST_RESULT.name] = str(ROOM // 16)  # results need several times their size
    for name in labels:
        for variant in variants(SCHEMAS[name], count):
            pipe.send(("begin", describe(variant)))
            try:
                fault = _fault(variant)
            except Exception as error:  # of this module
                fault = f"the test failed: {error!r}"
            if fault:
                pipe.send(("fault", fault))
    pipe.send(("end", ""))


def describe(variant: Variant) -> str:
    """Enough to find the variant again."""
    case = variant.case
    shapes = [
        f"{np.asarray(x).dtype}{list(x.shape)}" if hasattr(x, "shape") else type(x) for x in case.inputs
    ]
    small = [x.tolist() for x in case.inputs if hasattr(x, "dtype") and x.size <= SMALL]
    return f"{variant.name} ({variant.how}) {dict(case.attributes)} {shapes} {small}"[:600]


def _faults(labels: Sequence[str], count: int) -> list[str]:
    """The faults of a chunk; the variant at which the child died or hung is the last of them."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_run_chunk, args=(labels, count, theirs))
    with warnings.catch_warnings():  # about threads of the test runner; the child uses none of them
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    theirs.close()
    found: list[str] = []
    now = "nothing"
    try:
        while ours.poll(PATIENCE):
            kind, text = ours.recv()
            if kind == "end":
                return found
            if kind == "begin":
                now = text
            else:
                found.append(f"{now}\n    {text}")
        found.append(f"{now}\n    hangs")
    except EOFError:
        child.join(PATIENCE)
        found.append(f"{now}\n    the process died with {child.exitcode}")
    finally:
        child.kill()
        child.join()
        ours.close()
    return found


def _check(chunk: int, count: int) -> None:
    found = _faults(list(SCHEMAS)[chunk::CHUNKS], count)
    assert not found, "\n".join([f"{len(found)} faults", *found])


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_invalid_nodes_end_in_our_errors_or_in_a_result(chunk: int) -> None:
    _check(chunk, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_many_invalid_nodes(chunk: int) -> None:
    _check(chunk, MANY)
