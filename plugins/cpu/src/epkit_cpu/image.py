"""A native program as plain values, so that a later process takes it up without its nodes.

Steps name their kernels; constants are arrays that were saved with the program, or weights of the model by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from epkit.backend import Program, ProgramMemory, RunContext, Tensor
from epkit.dtypes import name_of, numpy_dtype
from epkit.errors import RunError

from .native import engine, kernels
from .prepared import Prepared

if TYPE_CHECKING:
    import numpy as np

FORMAT = 1
"""Of images. Also the lowering's: where the same nodes become other steps, it grows."""

THROUGH, WORD = "halves", 8
"""The kernel that calls another one, whose address its attributes begin with (``lower/halves.py``)."""

SHARED = 1 << 12
"""Bytes of a weight from which on it is not saved once more."""

Parts = tuple[Any, ...]
"""Slots, inputs, constants, steps, outputs, and what may follow, as the engine takes them."""


def image_of(
    parts: Parts,
    kinds: Sequence[str],
    table: Mapping[str, int],
    weights: Mapping[int, str],
    prepared: Prepared,
) -> dict[str, Any] | None:
    """The program as values that JSON can hold; None if a step is Python's, or a constant is text.

    Args:
        parts: what the engine was given.
        kinds: the slots' element types.
        table: the addresses of kernels by name.
        weights: constants that are weights of the model: names by slot.
        prepared: takes the constants that are nowhere else.
    """
    slots, inputs, constants, steps, outputs, *rest = parts
    if any(callable(step[0]) for step in steps) or any(not slots[slot][1] for slot, _ in constants):
        return None
    names = {address: name for name, address in table.items()}
    return {
        "format": FORMAT,
        "slots": [
            (kind, code, bits, escapes) for kind, (code, bits, _, escapes) in zip(kinds, slots, strict=True)
        ],
        "inputs": inputs,
        "constants": [(slot, *_kept(slot, array, weights, prepared)) for slot, array in constants],
        "steps": [
            (*_named(kernel, attributes, names), reads, writes, frees, fallback is not None, *others)
            for kernel, attributes, reads, writes, frees, fallback, *others in steps
        ],
        "outputs": outputs,
        "rest": rest,
    }


def _named(kernel: Any, attributes: bytes, names: Mapping[int, str]) -> tuple[list[str], str]:
    """The kernels that a step calls, and its attributes without their addresses, which the next process has not."""
    calls = [names.get(kernel, kernel)]
    if calls == [THROUGH]:
        calls.append(names[int.from_bytes(attributes[:WORD], "little")])
        attributes = attributes[WORD:]
    return calls, attributes.hex()


def _addressed(calls: Sequence[str], attributes: str, table: Mapping[str, int]) -> tuple[Any, bytes]:
    """What :func:`_named` was given, in this process."""
    inner = b"".join(table[name].to_bytes(WORD, "little") for name in calls[1:])
    return table.get(calls[0], calls[0]), inner + bytes.fromhex(attributes)


def _kept(
    slot: int, array: np.ndarray[Any, Any], weights: Mapping[int, str], prepared: Prepared
) -> tuple[Any, ...]:
    """Where a constant is found again: (place among what was saved or name of the weight, type, shape)."""
    place: int | str
    if slot in weights and array.nbytes >= SHARED:
        place = weights[slot]
    else:
        place = prepared.keep(array)
    return place, name_of(array.dtype), array.shape


def program_of(
    image: Mapping[str, Any], prepared: Prepared, weights: Mapping[str, Any], isa: str, threads: int
) -> Program | None:
    """A program that runs; None if the image is of another format, or a weight is not there."""
    table, module = kernels(isa), engine()
    places = [place for _, place, _, _ in image["constants"] if isinstance(place, str)]
    if image["format"] != FORMAT or module is None or any(place not in weights for place in places):
        return None
    slots = [
        (code, bits, numpy_dtype(kind) if bits else None, escapes)
        for kind, code, bits, escapes in image["slots"]
    ]
    constants = [
        (slot, _array(place, kind, shape, prepared, weights))
        for slot, place, kind, shape in image["constants"]
    ]
    steps = [
        (
            *_addressed(calls, attributes, table),
            reads,
            writes,
            frees,
            needs_its_node if falls_back else None,
            *others,
        )
        for calls, attributes, reads, writes, frees, falls_back, *others in image["steps"]
    ]
    inputs, outputs, rest = (_tuples(image[part]) for part in ("inputs", "outputs", "rest"))
    program = module.Program(slots, inputs, constants, steps, outputs, threads, *rest)
    return TakenUp(program, prepared.packed_bytes())


def _tuples(value: Any) -> Any:
    """JSON has lists only; the engine takes tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _array(
    place: int | str, kind: str, shape: list[int], prepared: Prepared, weights: Mapping[str, Any]
) -> np.ndarray[Any, Any]:
    if isinstance(place, str):
        return weights[place]  # type: ignore[no-any-return]
    return prepared.kept(place).view(numpy_dtype(kind)).reshape(shape)


def needs_its_node(context: RunContext | None, inputs: list[Any]) -> NoReturn:
    """Stands for a portable kernel: the session loads the model, and runs it again."""
    raise RunError("this step's node is not loaded", remedy="report this: the session should have loaded it")


class TakenUp(Program):
    """A program without its nodes: whoever runs it in another way than by ``feed`` has loaded the model first."""

    def __init__(self, program: Any, packed: int) -> None:
        self._program, self._packed = program, packed
        self.feed = program.feed

    def run(self, context: RunContext, inputs: Sequence[Tensor]) -> Sequence[Tensor]:
        return self._program.run(inputs, None, None, None)  # type: ignore[no-any-return]

    def memory(self) -> ProgramMemory:
        return replace(ProgramMemory(*self._program.memory()), packed=self._packed, mapped=self._packed)

    def close(self) -> None:
        self._program.close()
        self.feed = None
