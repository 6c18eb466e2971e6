"""The embeddings of an encoder: words, positions and segments, normalised."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...backend.subgraph import constant_of
from ..fuse import Fused, Inside, fusion
from ..pattern import Match
from ..rule import Rule, Scope
from ..shapes import Dim, dims_text, fits_dim, is_vector_for, same_dim

_LOOKUP = "Gather({0}_embedding, {0}_numbers)"
_WORD, _POSITION, _SEGMENT = (_LOOKUP.format(kind) for kind in ("word", "position", "segment"))
_NORMALISED = "output = LayerNormalization(total, gamma, beta, axis=axis, epsilon=epsilon)"


@fusion(
    "ms.EmbedLayerNormalization(input_ids, segment_ids, word_embedding, position_embedding, segment_embedding, "
    "gamma, beta, mask, position_ids) -> output, mask_index, total",
    f"total = {_WORD} + {_SEGMENT} + {_POSITION}\n{_NORMALISED}",
    f"total = {_WORD} + {_POSITION}\n{_NORMALISED}",
    # of a known length, the positions have been looked up already
    f"total = {_WORD} + {_SEGMENT} + places\n{_NORMALISED}",
    f"total = {_WORD} + places\n{_NORMALISED}",
)
def embed_layer_normalization(match: Match, scope: Scope) -> Fused | str:
    """EmbedLayerNormalization = LayerNormalization(words[ids] + positions[p] + segments[s], γ, β); and the sum."""
    _order(match)
    kinds = [kind for kind in ("word", "position", "segment") if match.get(f"{kind}_numbers") is not None]
    problem = _numbers(match, kinds) or _places(match)
    if problem:
        return problem
    if match.attributes["axis"] not in (-1, 2) or not is_vector_for(match["gamma"], match["total"]):
        return f"{dims_text(match['total'])} is not normalised over its last axis"
    formals = {"word": "input_ids", "position": "position_ids", "segment": "segment_ids"}
    inputs = {formals[kind]: _as_int32(match[f"{kind}_numbers"], match.root, scope) for kind in kinds}
    inside = {f"{kind}_numbers": Inside("Cast", formals[kind], (), {"to": 7}) for kind in kinds}
    places = match.array("places")
    if places is not None:
        inputs["position_embedding"] = scope.constant(places.reshape(places.shape[-2:]), "positions")
    return Fused({"epsilon": match.attributes["epsilon"]}, inputs=inputs, inside=inside)


def _places(match: Match) -> str | None:
    """Why what is added to the words is no table of positions, or None."""
    words, value, array = match["word_numbers"].shape, match.get("places"), match.array("places")
    if value is None:
        return None
    if array is None or array.ndim != 3 or array.shape[0] != 1 or words is None or words[1] != array.shape[1]:
        return f"{dims_text(value)} is no table of positions for {dims_text(match['word_numbers'])}"
    return None


def _order(match: Match) -> None:
    """Take for the positions what all samples share, if anything: the sum has no order."""
    for kind in ("word", "segment") if match.get("position_numbers") is not None else ():
        numbers = match.get(f"{kind}_numbers")
        if numbers is not None and numbers.shape is not None and list(numbers.shape)[:1] == [1]:
            for part in ("numbers", "embedding"):
                one, other = f"{kind}_{part}", f"position_{part}"
                match.names[one], match.names[other] = match[other], match[one]
            return


def _numbers(match: Match, kinds: list[str]) -> str | None:
    words = match["word_numbers"].shape
    if words is None or len(words) != 2:
        return f"{dims_text(match['word_numbers'])} is not [batch, length]"
    for kind in kinds:
        numbers, table = match[f"{kind}_numbers"], match[f"{kind}_embedding"]
        if table.shape is None or len(table.shape) != 2 or numbers.dtype != ir.DataType.INT64:
            return f"{dims_text(table)} is no table, or {numbers.name} not of int64"
        dims = list(numbers.shape or [])
        shared = kind == "position" and len(dims) == 2 and dims[0] == 1 and fits_dim(dims[1], words[1])
        if not shared and not _each(dims, list(words)):
            return f"{dims_text(numbers)} is not given for each of {dims_text(match['word_numbers'])}"
    return None


def _each(dims: list[Dim], words: list[Dim]) -> bool:
    """Whether numbers are given for each word."""
    return len(dims) == 2 and same_dim(dims[0], words[0]) and fits_dim(dims[1], words[1])


def _as_int32(value: ir.Value, root: ir.Node, scope: Scope) -> ir.Value:
    known = constant_of(value)
    if known is not None:
        return scope.constant(known.astype(np.int32), f"{value.name}/int32")
    made = scope.make(root, "Cast", [value], {"to": 6}, version=13)
    made.type, made.shape = ir.TensorType(ir.DataType.INT32), value.shape
    return made


RULES: tuple[Rule, ...] = (embed_layer_normalization,)
