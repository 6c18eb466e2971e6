"""Turns each kind of source into one buffer with a serialized ModelProto, and says what a wrong one is."""

from __future__ import annotations

import mmap
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.parser
import onnx.serialization

from epkit.errors import ModelError, NotOnnxError, OptionError, UnsafeModelError, Where
from epkit.model.external import map_descriptor
from epkit.model.limits import Limits
from epkit.model.tensor import Source

_LOOKS_LIKE: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive or PyTorch file (.pt)", "unpack it, or use torch.onnx.export"),
    (0, b"\x89PNG", "a PNG picture", "give the path of the model"),
    (0, b"\xff\xd8\xff", "a JPEG picture", "give the path of the model"),
    (0, b"%PDF", "a PDF document", "give the path of the model"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it first: gunzip"),
    (0, b"\x80\x02", "a Python pickle (.pt, .pkl)", "export with torch.onnx.export"),
    (0, b"\x80\x04", "a Python pickle (.pt, .pkl)", "export with torch.onnx.export"),
    (0, b"\x89HDF", "an HDF5 file (Keras)", "convert it with tf2onnx"),
    (0, b"GGUF", "a GGUF file", "export the original model to ONNX"),
    (4, b"ORTM", "a model in onnxruntime's own ORT format", "give the ONNX file that it was made from"),
    (4, b"TFL3", "a TensorFlow Lite model", "convert it with tf2onnx"),
    (8, b'{"', "a safetensors file", "export the model that it belongs to with torch.onnx.export"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself", "fetch it: git lfs pull"),
    (0, b"<!DOCTYPE", "a web page", "download the file itself, not the page about it"),
    (0, b"<html", "a web page", "download the file itself, not the page about it"),
    (0, b"\x7fELF", "a program or library", "give the path of the model"),
    (0, b"ir_version", "a model in protobuf text format", "name the file with the suffix .textproto"),
    (0, b"<", "XML, or ONNX's textual syntax", "for the latter, use the suffix .onnxtxt"),
    (0, b"{", "JSON", "if it is a model as protobuf JSON, name the file with the suffix .json"),
)


@dataclass
class Opened:
    """A serialized model in memory or in a map; `close` is for failure only, tensors keep the map alive."""

    buffer: Source
    path: Path | None = None

    def close(self) -> None:
        if isinstance(self.buffer, mmap.mmap):
            with suppress(BufferError):
                self.buffer.close()


def open_source(source: object, limits: Limits) -> Opened:
    """The bytes of a path, bytes-like object or ModelProto.

    Raises:
        NotOnnxError: no such file, not a file, or a text format that does not parse.
        OptionError: the source is of a type that cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        return _open_path(Path(os.fspath(source)), limits)
    if isinstance(source, (bytes, bytearray, memoryview)):
        view = memoryview(source)
        if not view.c_contiguous:
            raise OptionError("The bytes of a model must be contiguous.", remedy="pass bytes(view)")
        return Opened(view.cast("B").toreadonly())
    if isinstance(source, onnx.ModelProto):
        return Opened(_serialize(source))
    raise OptionError(
        f"A model cannot be read from a {type(source).__name__}.",
        remedy="give a path, bytes, an onnx.ModelProto or an onnx_ir.Model",
    )


def explain(head: bytes, size: int, error: Exception | None) -> NotOnnxError:
    """The error for bytes that are no model: what they look like, and what to do."""
    if size == 0:
        return NotOnnxError("The model is empty.", remedy="save or download it again")
    for offset, magic, kind, remedy in _LOOKS_LIKE:
        if head[offset:].startswith(magic):
            return NotOnnxError(f"This is not an ONNX model; it looks like {kind}.", remedy=remedy)
    if head.isascii() and all(byte >= 32 or byte in b"\t\n\r" for byte in head):
        return NotOnnxError(
            "This is not an ONNX model; it looks like text.",
            remedy="give the path of an .onnx file; a model as text is read from a file that ends in .onnxtxt, "
            ".textproto or .json",
        )
    if error is None:
        return NotOnnxError(
            "This is not an ONNX model: it has no IR version or no graph.",
            remedy="check that the file is a ModelProto (not a single tensor or graph) and complete",
        )
    detail = error.what if isinstance(error, ModelError) else f"protobuf cannot parse it ({error})"
    return NotOnnxError(
        f"This is not an ONNX model, or a damaged one. {detail}", remedy="download or export it again"
    )


def _open_path(path: Path, limits: Limits) -> Opened:
    where = Where(file=str(path))
    try:
        _refuse_special(path, where)
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        try:
            buffer = map_descriptor(descriptor)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
        raise NotOnnxError(
            f"The file {path} {reason}.", where=where, remedy="check the path and its permissions"
        ) from None
    opened = Opened(buffer, path)
    kind = text_format(path)
    if kind is None:
        return opened
    try:
        limits.refuse_above("text_bytes", len(buffer), "Bytes of a model in a text format")
        return Opened(_serialize(_parse_text(bytes(buffer), kind, where)), path)
    finally:
        opened.close()


def _refuse_special(path: Path, where: Where) -> None:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        models = sorted(path.glob("*.onnx"))
        found = f"; in the folder: {', '.join(model.name for model in models[:5])}" if models else ""
        raise NotOnnxError(
            f"{path} is a folder.", where=where, remedy=f"give the path of a model file{found}"
        )
    if not stat.S_ISREG(mode):
        raise NotOnnxError(
            f"{path} is a device, pipe or socket.", where=where, remedy="read it yourself and pass the bytes"
        )


def text_format(path: Path) -> str | None:
    """The text format that a suffix stands for in onnx's registry, or None for binary."""
    if path.name.endswith(".onnx.txt"):
        return "onnxtxt"
    kind = onnx.serialization.registry.get_format_from_file_extension(path.suffix.lower())
    return None if kind in (None, "protobuf") else kind


def _parse_text(text: bytes, kind: str, where: Where) -> onnx.ModelProto:
    try:
        if kind == "onnxtxt":
            return onnx.parser.parse_model(text.decode())
        return onnx.serialization.registry.get(kind).deserialize_proto(text, onnx.ModelProto())
    except Exception as error:  # three parsers, each with errors of its own, RecursionError among them
        raise NotOnnxError(
            f"The text is not an ONNX model in the format {kind}: {str(error)[:300]}",
            where=where,
            remedy="correct the text at the place named, or check the suffix of the file",
        ) from None


def _serialize(model: onnx.ModelProto) -> bytes:
    try:
        data: bytes = model.SerializeToString()
        return data
    except Exception as error:
        raise UnsafeModelError(
            f"The ModelProto cannot be serialized: {str(error)[:200]}",
            remedy="above 2 GB, save it with external data and read it from its path",
        ) from None
