"""Reads an ONNX model from a file, bytes or an object, without copying its weights.

A model file is mapped; `wire` cuts the weights out, protobuf parses what is left, `normalize` settles quirks,
`weights` checks sizes and opens external data, and `deserialize` makes the graph of onnx_ir, checking names on the way.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from epkit.errors import EpkitError, InvalidModelError, NotOnnxError
from epkit.model import long_lists, maptypes
from epkit.model.deserialize import deserialize
from epkit.model.external import ExternalFiles
from epkit.model.infer import weightless
from epkit.model.limits import DEFAULT_LIMITS, Limits
from epkit.model.normalize import normalize
from epkit.model.order import sort_graphs
from epkit.model.source import Opened, explain, open_source
from epkit.model.structure import check_structure
from epkit.model.text import check_text
from epkit.model.weights import Weights, attach
from epkit.model.wire import Cut, cut

ModelSource = str | os.PathLike[str] | bytes | bytearray | memoryview | onnx.ModelProto | ir.Model


@dataclass(frozen=True)
class ReadModel:
    """A model as read: names and sizes are sound, operators not yet looked at.

    Attributes:
        model: the graph; its large weights are views of the file.
        name: file name, or what the source was.
        path: the file, if it was one.
        warnings: what was settled or repaired, one sentence each.
        overridable: initializers that were also graph inputs, now constants.
        limits: those that it was read under; `check` keeps them too.
        skeleton: the same model as protobuf without large weights; None if given as onnx_ir.Model, and if it is large.
        external: the other files in which weights lie.
    """

    model: ir.Model
    name: str
    path: Path | None = None
    warnings: tuple[str, ...] = ()
    overridable: tuple[str, ...] = ()
    limits: Limits = field(default=DEFAULT_LIMITS, repr=False)
    skeleton: onnx.ModelProto | None = field(default=None, repr=False, compare=False)
    external: tuple[Path, ...] = ()

    def __str__(self) -> str:
        warnings = (f"warning: {warning}" for warning in self.warnings)
        return "\n".join([f"read {self.name}", *describe(self.model), *warnings])


def read(
    source: ModelSource, *, limits: Limits = DEFAULT_LIMITS, base_dir: str | os.PathLike[str] | None = None
) -> ReadModel:
    """Read a model.

    Args:
        source: path of a file (.onnx, or a text format by its suffix), its bytes, a ModelProto, or an
            onnx_ir.Model, which is sorted, then cloned. Bytes are viewed, so must not change while in use.
        limits: what the model may ask for.
        base_dir: folder of the external data; by default that of the file.

    Raises:
        NotOnnxError: not ONNX, or damaged.
        InvalidModelError: a rule of the standard is broken.
        UnsafeModelError: a limit is exceeded, or a path leads out of the model's folder.
        ExternalDataError: external data are missing or too short.
        UnsupportedOpsetError: the IR version is newer than known.
    """
    name = _name(source)
    try:
        if isinstance(source, ir.Model):
            return _read_ir(source, limits)
        return _read_opened(open_source(source, limits), name, limits, base_dir)
    except EpkitError as error:
        raise error.at(stage="read", model=name) from error.__cause__


def describe(model: ir.Model) -> list[str]:
    """A few lines for people: versions, inputs, outputs, sizes."""
    graph = model.graph
    weights = [value.const_value for value in graph.initializers.values() if value.const_value is not None]
    size = sum(tensor.nbytes for tensor in weights if tensor.dtype != ir.DataType.STRING)
    lines = [
        f"  IR version {model.ir_version}, opsets "
        + ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in graph.opset_imports.items()),
        f"  {sum(1 for _ in graph.all_nodes()):,} nodes, {len(model.functions):,} functions, "
        f"{len(weights):,} weights of {size:,} bytes",
    ]
    lines += [f"  input  {value}" for value in graph.inputs]
    return [*lines, *(f"  output {value}" for value in graph.outputs)]


def _read_opened(
    opened: Opened, name: str, limits: Limits, base_dir: str | os.PathLike[str] | None
) -> ReadModel:
    folder = Path(base_dir) if base_dir is not None else (opened.path.parent if opened.path else None)
    files = ExternalFiles(opened.path, folder)
    try:
        skeleton, cuts = _skeleton(opened, limits)
        _nodes = list(
            skeleton.graph.node
        )  # while they are held, protobuf makes no others: most time goes there
        try:
            warnings, overridable = normalize(skeleton, limits)
            payloads = Weights(opened.buffer, cuts, files, limits).resolve(skeleton)
        except Exception:
            check_text(skeleton)  # bytes in the place of a name may be why
            raise
        with maptypes.set_aside(skeleton) as aside, long_lists.set_aside(skeleton) as lists:
            model = _deserialize(skeleton, limits)
        maptypes.bring_back((*model.graph.inputs, *model.graph.outputs), aside)
        long_lists.bring_back(model.graph, lists)
        attach(model, payloads)
    except BaseException:
        files.close()
        opened.close()
        raise
    kept = None if lists else skeleton  # with those lists it is most of the file
    return ReadModel(model, name, opened.path, tuple(warnings), overridable, limits, kept, files.paths)


def _skeleton(opened: Opened, limits: Limits) -> tuple[onnx.ModelProto, list[Cut]]:
    with memoryview(opened.buffer) as view:
        try:
            small, cuts = cut(view, nesting=limits.nesting)
            model = onnx.ModelProto.FromString(small)
        except (NotOnnxError, DecodeError) as error:
            raise explain(bytes(view[:512]), len(view), error) from None
        if not model.HasField("graph") or not model.ir_version:
            raise explain(bytes(view[:512]), len(view), None)
    return model, cuts


def _deserialize(skeleton: onnx.ModelProto, limits: Limits) -> ir.Model:
    try:
        return deserialize(skeleton, limits)
    except EpkitError:
        raise
    except Exception as error:  # whatever onnx_ir meets that the checks before it let pass
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise InvalidModelError(
            f"The model cannot be understood: {str(cause)[:300]}.",
            remedy="check it with onnx.checker.check_model, and export it anew",
        ) from None


def _read_ir(source: ir.Model, limits: Limits) -> ReadModel:
    owners: list[ir.Graph | ir.Function] = [source.graph, *source.functions.values()]
    for owner in owners:
        sort_graphs(owner)  # onnx_ir clones sorted graphs only
    try:
        model = source.clone()
        skeleton = weightless(model)
    except Exception as error:
        raise InvalidModelError(
            f"The onnx_ir.Model is inconsistent: {str(error)[:300]}.", remedy="check the pass that made it"
        ) from error
    check_structure(skeleton, limits)
    return ReadModel(model, _name(source), limits=limits)


def _name(source: ModelSource) -> str:
    if isinstance(source, (str, os.PathLike)):
        return os.path.basename(os.fspath(source)) or os.fspath(source)
    if isinstance(source, onnx.ModelProto):
        return "<ModelProto>"
    if isinstance(source, ir.Model):
        return "<onnx_ir.Model>"
    return "<bytes>"
