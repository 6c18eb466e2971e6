"""The instruction set, version 2: one named tuple an instruction, 128 bytes each in the binary form.

Bytes 0: opcode, the place in ``INSTRUCTIONS`` from 1 on; 1: zero; 2-3: tag (the layer that the command belongs
to); 4-19: four counters; 20-127: 27 signed 32-bit operands in the order of the fields. A command starts when each
engine has completed as many commands as its counter says, and when its own engine is free. Little endian.
"""

from __future__ import annotations

import struct
from collections import namedtuple
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

VERSION = 2
ENGINES = ("load", "store", "array", "vector")
LOAD, STORE, ARRAY, VECTOR = range(4)
INT8, UINT8, INT16, UINT16, INT32, FLOAT32 = range(6)
TYPE_NAMES = ("int8", "uint8", "int16", "uint16", "int32", "float32")
TYPE_BYTES = (1, 1, 2, 2, 4, 4)

_WORD = struct.Struct("<BBH4I27i")
Waits = tuple[int, int, int, int]
NO_WAITS: Waits = (0, 0, 0, 0)

# Operands that several instructions have, with one meaning:
#
# addresses are bytes in the scratchpad unless said, where all tensors lie dense;
# base, dram: DRAM, as an entry of the table of tensors that the host binds for each run (0: the program's image)
#     and an offset in bytes;
# size, n0 n1 n2, s0 s1 s2: a box of elements of so many bytes, strided (bytes) in DRAM;
# x ... x_type: a window that moves over x[channels, height, width]; ``top`` and ``left`` rows and columns of
#     padding lie before it, and whatever else lies outside is padding too; zx is subtracted from what lies inside;
# y zero low high y_type: results are rounded half to even, moved by ``zero`` and kept in [low, high];
# zeros: address of int32 zero points, one a column (a channel), in place of the one before it; -1: none.


class Load(namedtuple("Load", "base dram spad size n0 n1 n2 s0 s1 s2 crc packed", defaults=(0, 0))):
    """DRAM to scratchpad. ``crc``: CRC-32 of the arriving bytes, 0 if unknown; ``packed``: bytes of a
    zero-masked source, 0 if it is plain.
    """

    __slots__ = ()
    ENGINE = LOAD


class Store(namedtuple("Store", "base dram spad size n0 n1 n2 s0 s1 s2")):
    """Scratchpad to DRAM."""

    __slots__ = ()
    ENGINE = STORE


class Gather(namedtuple("Gather", "base dram spad size n0 s0 s1 index index_size count limit")):
    """DRAM to scratchpad: y[n0, count] of ``size`` bytes each, y[i, j] from i s0 + index[j] s1. The indices are
    integers of ``index_size`` bytes in the scratchpad, from -limit to limit - 1; negative ones count from the end.
    """

    __slots__ = ()
    ENGINE = LOAD


class MatMul(namedtuple("MatMul", "a b c m k n a_row a_col b_row b_col za zb zeros a_type b_type add")):
    """c[m, n] (+)= (a - za)[m, k] (b - zb)[k, n], exact in int32; strides in elements.

    ``b`` is stationary. ``add``: keep c.
    """

    __slots__ = ()
    ENGINE = ARRAY


class Conv(
    namedtuple(
        "Conv",
        "x y channels height width kh kw sh sw dh dw top left ho wo zx x_type w out zw zeros w_type add",
    )
):
    """y[out, ho, wo] (+)= (w - zw)[out, channels, kh, kw] over (x - zx), int32; ``w`` is stationary."""

    __slots__ = ()
    ENGINE = ARRAY


class DepthConv(
    namedtuple(
        "DepthConv", "x y channels height width kh kw sh sw dh dw top left ho wo zx x_type w zw zeros w_type"
    )
):
    """One filter w[channels, kh, kw] for each channel; y int32."""

    __slots__ = ()
    ENGINE = VECTOR


class PoolMax(namedtuple("PoolMax", "x y channels height width kh kw sh sw dh dw top left ho wo zx x_type")):
    """y[channels, ho, wo] of the type of x; padding never wins."""

    __slots__ = ()
    ENGINE = VECTOR


class PoolSum(namedtuple("PoolSum", "x y channels height width kh kw sh sw dh dw top left ho wo zx x_type")):
    """y[channels, ho, wo] = sum of (x - zx), int32."""

    __slots__ = ()
    ENGINE = VECTOR


class Requantise(namedtuple("Requantise", "y zero low high y_type acc params rows cols axis")):
    """y[r, c] = (acc[r, c] + bias) mult / 2^shift. ``params``: three int32 vectors bias, mult, shift, one
    entry for each row (axis 0), each column (axis 1), or one in all (axis 2).
    """

    __slots__ = ()
    ENGINE = VECTOR


class Add(namedtuple("Add", "y zero low high y_type a b n za zb ma mb shift a_type b_type")):
    """y = ((a - za) ma + (b - zb) mb) / 2^shift over n elements."""

    __slots__ = ()
    ENGINE = VECTOR


class Mul(namedtuple("Mul", "y zero low high y_type a b n za zb ma shift a_type b_type")):
    """y = (a - za) (b - zb) ma / 2^shift over n elements."""

    __slots__ = ()
    ENGINE = VECTOR


class Select(namedtuple("Select", "y mask a b n size")):
    """y = a where the byte of ``mask`` is not 0, else b, over n elements of ``size`` bytes."""

    __slots__ = ()
    ENGINE = VECTOR


class Table(namedtuple("Table", "x y n table size")):
    """y[i] = table[x[i] as a byte]: 256 entries of ``size`` bytes."""

    __slots__ = ()
    ENGINE = VECTOR


class Polynomial(namedtuple("Polynomial", "y zero low high y_type x n table")):
    """int16 to int16: t the low byte of x, (c0, c1, c2) int32 by its high byte (signed);
    y = (c0 2^16 + c1 t 2^8 + c2 t^2) / 2^24.
    """

    __slots__ = ()
    ENGINE = VECTOR


class Softmax(namedtuple("Softmax", "y zero low high y_type x rows cols table mult shift x_type")):
    """Along each of ``rows`` rows: e = table[max - x] (256 x uint32), y = e mult / (2^shift sum(e))."""

    __slots__ = ()
    ENGINE = VECTOR


class LayerNorm(
    namedtuple("LayerNorm", "y zero low high y_type x rows cols table eps_hi eps_lo shift x_type")
):
    """Along each row, see the data sheet: ``table`` holds gamma and beta (int32, one each for each column);
    eps = eps_hi 2^31 + eps_lo.
    """

    __slots__ = ()
    ENGINE = VECTOR


class Barrier(namedtuple("Barrier", "")):
    """Nothing; the array passes it when the counters say so."""

    __slots__ = ()
    ENGINE = ARRAY


Operands = (
    Load | Store | Gather | MatMul | Conv | DepthConv | PoolMax | PoolSum | Requantise
    | Add | Mul | Select | Table | Polynomial | Softmax | LayerNorm | Barrier
)  # fmt: skip
INSTRUCTIONS: tuple[type[Operands], ...] = get_args(Operands)
OPCODES = {kind: number for number, kind in enumerate(INSTRUCTIONS, 1)}
BY_NAME = {kind.__name__.lower(): kind for kind in INSTRUCTIONS}


@dataclass(frozen=True, slots=True)
class Command:
    """An instruction in a stream."""

    op: Operands
    tag: int = 0
    waits: Waits = NO_WAITS

    def __str__(self) -> str:
        operands = (f"{name}={value}" for name, value in zip(self.op._fields, self.op, strict=True))
        waits = ",".join(f"{e}:{n}" for e, n in zip(ENGINES, self.waits, strict=True) if n)
        name = type(self.op).__name__.lower()
        return " ".join([name, *operands, f"@{self.tag}", *([f"wait={waits}"] if waits else [])])


def encode(commands: Iterable[Command]) -> bytes:
    """The binary form."""
    return b"".join(
        _WORD.pack(OPCODES[type(c.op)], 0, c.tag, *c.waits, *c.op, *(0,) * (27 - len(c.op))) for c in commands
    )


def decode(code: bytes) -> list[Command]:
    """The commands of a binary stream.

    Raises:
        ValueError: if it is cut short, or holds an opcode of no instruction.
    """
    if len(code) % _WORD.size:
        raise ValueError(f"a stream of {len(code)} bytes is no multiple of {_WORD.size}")
    commands = []
    for index, (opcode, _, tag, *words) in enumerate(_WORD.iter_unpack(code)):
        if not 0 < opcode <= len(INSTRUCTIONS):
            raise ValueError(
                f"command {index} has opcode {opcode}; version {VERSION} knows 1 to {len(INSTRUCTIONS)}"
            )
        kind = INSTRUCTIONS[opcode - 1]
        waits, values = words[:4], words[4 : 4 + len(kind._fields)]
        commands.append(Command(kind(*values), tag, _four(waits)))
    return commands


def _four(counts: Sequence[int]) -> Waits:
    load, store, array, vector = counts
    return load, store, array, vector


def disassemble(commands: Sequence[Command]) -> str:
    """One line a command, which ``assemble`` reads."""
    return "\n".join(map(str, commands))


def assemble(text: str) -> list[Command]:
    """The commands of a text: ``name field=value ... @tag wait=engine:count,...``; ``#`` begins a comment.

    Raises:
        ValueError: naming the line and what is wrong with it.
    """
    commands = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if words:
            try:
                commands.append(_assembled(words))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"line {number}: {line.strip()!r}: {error}") from error
    return commands


def _assembled(words: list[str]) -> Command:
    if words[0] not in BY_NAME:
        raise ValueError(f"no instruction {words[0]!r}; there are {', '.join(BY_NAME)}")
    operands: dict[str, int] = {}
    tag, waits = 0, [0] * len(ENGINES)
    for word in words[1:]:
        name, _, value = word.partition("=")
        if word.startswith("@"):
            tag = int(word[1:])
        elif name == "wait":
            for item in value.split(","):
                engine, _, count = item.partition(":")
                waits[ENGINES.index(engine)] = int(count)
        else:
            operands[name] = int(value, 0)
    return Command(BY_NAME[words[0]](**operands), tag, _four(waits))
