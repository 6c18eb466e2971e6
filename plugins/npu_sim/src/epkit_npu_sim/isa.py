"""The instruction set, version 1: one dataclass an instruction, 128 bytes each in the binary form.

Bytes 0: opcode; 1: zero; 2-3: tag (the layer that the command belongs to); 4-19: four counters; 20-127:
27 signed 32-bit operands in the order of the fields. A command starts when each engine has completed as many
commands as its counter says, and when its own engine is free. Little endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

VERSION = 1
ENGINES = ("load", "store", "array", "vector")
LOAD, STORE, ARRAY, VECTOR = range(4)
INT8, UINT8, INT16, UINT16, INT32, FLOAT32 = range(6)
TYPE_NAMES = ("int8", "uint8", "int16", "uint16", "int32", "float32")
TYPE_BYTES = (1, 1, 2, 2, 4, 4)

_WORD = struct.Struct("<BBH4I27i")
Waits = tuple[int, int, int, int]
NO_WAITS: Waits = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Operands:
    """The operands of one instruction. Addresses are bytes in the scratchpad unless said."""

    OPCODE: ClassVar[int] = 0
    ENGINE: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class _Transfer(Operands):
    """A box of n0 x n1 x n2 elements of ``size`` bytes: strided (bytes) in DRAM, dense in the scratchpad.

    ``base`` indexes the table of tensors that the host binds for each run; 0 is the program's image.
    """

    base: int
    dram: int
    spad: int
    size: int
    n0: int
    n1: int
    n2: int
    s0: int
    s1: int
    s2: int


@dataclass(frozen=True, slots=True)
class Load(_Transfer):
    """DRAM to scratchpad. ``crc``: CRC-32 of the arriving bytes, 0 if unknown; ``packed``: bytes of a
    zero-masked source, 0 if it is plain.
    """

    OPCODE: ClassVar[int] = 1
    ENGINE: ClassVar[int] = LOAD
    crc: int = 0
    packed: int = 0


@dataclass(frozen=True, slots=True)
class Store(_Transfer):
    """Scratchpad to DRAM."""

    OPCODE: ClassVar[int] = 2
    ENGINE: ClassVar[int] = STORE


@dataclass(frozen=True, slots=True)
class MatMul(Operands):
    """c[m, n] (+)= (a - za)[m, k] (b - zb)[k, n], exact in int32; strides in elements.

    ``b`` is stationary. ``zeros``: address of n int32 zero points that replace ``zb``, or -1. ``add``: keep c.
    """

    OPCODE: ClassVar[int] = 3
    ENGINE: ClassVar[int] = ARRAY
    a: int
    b: int
    c: int
    m: int
    k: int
    n: int
    a_row: int
    a_col: int
    b_row: int
    b_col: int
    za: int
    zb: int
    zeros: int
    a_type: int
    b_type: int
    add: int


@dataclass(frozen=True, slots=True)
class _Window(Operands):
    """A window that moves over x[channels, height, width]; ``top`` and ``left`` rows and columns of padding
    lie before it, and whatever else lies outside is padding too.
    """

    x: int
    y: int
    channels: int
    height: int
    width: int
    kh: int
    kw: int
    sh: int
    sw: int
    dh: int
    dw: int
    top: int
    left: int
    ho: int
    wo: int
    zx: int
    x_type: int


@dataclass(frozen=True, slots=True)
class Conv(_Window):
    """y[out, ho, wo] (+)= (w - zw)[out, channels, kh, kw] over (x - zx), int32; ``w`` is stationary."""

    OPCODE: ClassVar[int] = 4
    ENGINE: ClassVar[int] = ARRAY
    w: int
    out: int
    zw: int
    zeros: int
    w_type: int
    add: int


@dataclass(frozen=True, slots=True)
class DepthConv(_Window):
    """One filter w[channels, kh, kw] for each channel; y int32."""

    OPCODE: ClassVar[int] = 5
    ENGINE: ClassVar[int] = VECTOR
    w: int
    zw: int
    zeros: int
    w_type: int


@dataclass(frozen=True, slots=True)
class PoolMax(_Window):
    """y[channels, ho, wo] of the type of x; padding never wins."""

    OPCODE: ClassVar[int] = 6
    ENGINE: ClassVar[int] = VECTOR


@dataclass(frozen=True, slots=True)
class PoolSum(_Window):
    """y[channels, ho, wo] = sum of (x - zx), int32."""

    OPCODE: ClassVar[int] = 7
    ENGINE: ClassVar[int] = VECTOR


@dataclass(frozen=True, slots=True)
class _Output(Operands):
    """Results are rounded half to even, moved by ``zero`` and kept in [low, high]."""

    y: int
    zero: int
    low: int
    high: int
    y_type: int


@dataclass(frozen=True, slots=True)
class Requantise(_Output):
    """y[r, c] = (acc[r, c] + bias) mult / 2^shift. ``params``: three int32 vectors bias, mult, shift, one
    entry for each row (axis 0), each column (axis 1), or one in all (axis 2).
    """

    OPCODE: ClassVar[int] = 8
    ENGINE: ClassVar[int] = VECTOR
    acc: int
    params: int
    rows: int
    cols: int
    axis: int


@dataclass(frozen=True, slots=True)
class Add(_Output):
    """y = ((a - za) ma + (b - zb) mb) / 2^shift over n elements."""

    OPCODE: ClassVar[int] = 9
    ENGINE: ClassVar[int] = VECTOR
    a: int
    b: int
    n: int
    za: int
    zb: int
    ma: int
    mb: int
    shift: int
    a_type: int
    b_type: int


@dataclass(frozen=True, slots=True)
class Mul(_Output):
    """y = (a - za) (b - zb) ma / 2^shift over n elements."""

    OPCODE: ClassVar[int] = 10
    ENGINE: ClassVar[int] = VECTOR
    a: int
    b: int
    n: int
    za: int
    zb: int
    ma: int
    shift: int
    a_type: int
    b_type: int


@dataclass(frozen=True, slots=True)
class Table(Operands):
    """y[i] = table[x[i] as a byte]: 256 entries of ``size`` bytes."""

    OPCODE: ClassVar[int] = 11
    ENGINE: ClassVar[int] = VECTOR
    x: int
    y: int
    n: int
    table: int
    size: int


@dataclass(frozen=True, slots=True)
class Polynomial(_Output):
    """int16 to int16: t the low byte of x, (c0, c1, c2) int32 by its high byte (signed);
    y = (c0 2^16 + c1 t 2^8 + c2 t^2) / 2^24.
    """

    OPCODE: ClassVar[int] = 12
    ENGINE: ClassVar[int] = VECTOR
    x: int
    n: int
    table: int


@dataclass(frozen=True, slots=True)
class Softmax(_Output):
    """Along each of ``rows`` rows: e = table[max - x] (256 x uint32), y = e mult / (2^shift sum(e))."""

    OPCODE: ClassVar[int] = 13
    ENGINE: ClassVar[int] = VECTOR
    x: int
    rows: int
    cols: int
    table: int
    mult: int
    shift: int
    x_type: int


@dataclass(frozen=True, slots=True)
class LayerNorm(_Output):
    """Along each row, see the data sheet: ``params`` holds gamma and beta (int32, one each for each column);
    eps = eps_hi 2^31 + eps_lo.
    """

    OPCODE: ClassVar[int] = 14
    ENGINE: ClassVar[int] = VECTOR
    x: int
    rows: int
    cols: int
    params: int
    eps_hi: int
    eps_lo: int
    shift: int
    x_type: int


@dataclass(frozen=True, slots=True)
class Barrier(Operands):
    """Nothing; the array passes it when the counters say so."""

    OPCODE: ClassVar[int] = 15
    ENGINE: ClassVar[int] = ARRAY


INSTRUCTIONS: tuple[type[Operands], ...] = (
    *(Load, Store, MatMul, Conv, DepthConv, PoolMax, PoolSum, Requantise),
    *(Add, Mul, Table, Polynomial, Softmax, LayerNorm, Barrier),
)
BY_OPCODE = {kind.OPCODE: kind for kind in INSTRUCTIONS}
BY_NAME = {kind.__name__.lower(): kind for kind in INSTRUCTIONS}
FIELDS = {kind: tuple(f.name for f in fields(kind)) for kind in INSTRUCTIONS}


@dataclass(frozen=True, slots=True)
class Command:
    """An instruction in a stream."""

    op: Operands
    tag: int = 0
    waits: Waits = NO_WAITS

    def __str__(self) -> str:
        names = FIELDS[type(self.op)]
        parts = [type(self.op).__name__.lower(), *(f"{name}={getattr(self.op, name)}" for name in names)]
        waits = ",".join(f"{e}:{n}" for e, n in zip(ENGINES, self.waits, strict=True) if n)
        return " ".join([*parts, f"@{self.tag}", *([f"wait={waits}"] if waits else [])])


def encode(commands: Iterable[Command]) -> bytes:
    """The binary form."""
    words = []
    for command in commands:
        values = [getattr(command.op, name) for name in FIELDS[type(command.op)]]
        values += [0] * (27 - len(values))
        words.append(_WORD.pack(command.op.OPCODE, 0, command.tag, *command.waits, *values))
    return b"".join(words)


def decode(code: bytes) -> list[Command]:
    """The commands of a binary stream.

    Raises:
        ValueError: if it is cut short, or holds an opcode of no instruction.
    """
    if len(code) % _WORD.size:
        raise ValueError(f"a stream of {len(code)} bytes is no multiple of {_WORD.size}")
    return [_decoded(word, index) for index, word in enumerate(_WORD.iter_unpack(code))]


def _decoded(word: tuple[int, ...], index: int) -> Command:
    opcode, _, tag, load, store, array, vector, *values = word
    kind = BY_OPCODE.get(opcode)
    if kind is None:
        raise ValueError(f"command {index} has opcode {opcode}; version {VERSION} knows {sorted(BY_OPCODE)}")
    return Command(kind(*values[: len(FIELDS[kind])]), tag, (load, store, array, vector))


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
    load, store, array, vector = waits
    return Command(BY_NAME[words[0]](**operands), tag, (load, store, array, vector))
