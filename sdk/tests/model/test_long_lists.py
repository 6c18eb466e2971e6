"""Long lists of tree ensembles: read as arrays, equal to what onnx reads, and written again as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import epkit
from epkit.model.long_lists import LONG, LongList
from epkit.model.read import read
from epkit.model.write import write
from epkit.testing.oracle import expected

DOMAIN = "ai.onnx.ml"


def chain(length: int, mode: str = "BRANCH_LEQ", targets: int = 1) -> onnx.ModelProto:
    """One tree that is a chain: node i sends x <= i to a leaf that votes i / 8."""
    inner = range(length)
    attributes: dict[str, Any] = {
        "n_targets": targets,
        "nodes_treeids": [0] * (2 * length + 1),
        "nodes_nodeids": list(range(2 * length + 1)),
        "nodes_modes": [mode] * length + ["LEAF"] * (length + 1),
        "nodes_featureids": [0] * (2 * length + 1),
        "nodes_values": [float(i) for i in inner] + [0.0] * (length + 1),
        "nodes_truenodeids": [length + i for i in inner] + [0] * (length + 1),
        "nodes_falsenodeids": [i + 1 if i + 1 < length else 2 * length for i in inner] + [0] * (length + 1),
        "target_treeids": [0] * (length + 1),
        "target_nodeids": [length + i for i in range(length + 1)],
        "target_ids": [0] * (length + 1),
        "target_weights": [i / 8 for i in range(length + 1)],
    }
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], "trees", domain=DOMAIN, **attributes)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1]) for name in ("x", "y")]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    imports = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def lists(model: onnx.ModelProto) -> dict[str, list[object]]:
    return {a.name: list(helper.get_attribute_value(a)) for a in model.graph.node[0].attribute if a.type != 2}


def test_they_are_read_as_arrays_and_written_as_lists(tmp_path: Path) -> None:
    model = chain(LONG)
    result = read(model.SerializeToString())
    node = next(iter(result.model.graph))
    long = {name: attribute.value for name, attribute in node.attributes.items() if name != "n_targets"}
    assert all(isinstance(value, LongList) for value in long.values())
    wanted = {
        name: [e.decode() if isinstance(e, bytes) else e for e in x] for name, x in lists(model).items()
    }
    assert {name: list(value) for name, value in long.items()} == wanted
    assert {name: [value[i] for i in range(-3, 3)] for name, value in long.items()} == {
        name: [value[i] for i in range(-3, 3)] for name, value in wanted.items()
    }
    write(result.model, tmp_path / "again.onnx")
    assert lists(onnx.load(tmp_path / "again.onnx")) == lists(model)


def test_the_ensemble_computes_the_same_and_its_types_are_inferred() -> None:
    model = chain(LONG + 5)
    x = np.array([[-1.0], [3.0], [3.5], [LONG], [1e9]], np.float32)
    with epkit.load(model.SerializeToString()) as session:
        found = session(x=x)["y"]
    np.testing.assert_array_equal(found, expected(model, {"x": x})["y"])


@pytest.mark.parametrize("word", ["BRANCH_XYZ", "J\nBRANCH", ""])
def test_a_mode_that_does_not_exist_is_told(word: str) -> None:
    model = chain(LONG)
    place = next(i for i, a in enumerate(model.graph.node[0].attribute) if a.name == "nodes_modes")
    model.graph.node[0].attribute[place].strings[7] = word.encode()
    with (
        epkit.load(model.SerializeToString()) as session,
        pytest.raises(epkit.EpkitError, match="nodes_modes"),
    ):
        session(x=np.zeros((1, 1), np.float32))


WORDS = st.lists(st.text(st.characters(codec="ascii"), max_size=3), min_size=1, max_size=5, unique=True)


@settings(max_examples=60, deadline=None)
@given(WORDS, st.integers(0, 2**32 - 1), st.sampled_from(["", "é", "x" * 200]))
def test_strings_are_what_they_were(words: list[str], seed: int, odd: str) -> None:
    """Whatever the words: also those that look like the beginning of another record, or that are too odd to be coded."""
    random = np.random.default_rng(seed)
    entries = [*(words[i] for i in random.integers(0, len(words), LONG + 1)), odd]
    model = chain(LONG)
    modes = next(a for a in model.graph.node[0].attribute if a.name == "nodes_modes")
    modes.strings[:] = [entry.encode() for entry in entries]
    node = next(iter(read(model.SerializeToString()).model.graph))
    assert tuple(node.attributes["nodes_modes"].value) == tuple(entries)


def test_one_entry_changed_is_another_model(tmp_path: Path) -> None:
    """In the cache, whose key counts what lies beside the graph."""
    model, x = chain(LONG), np.array([[0.5]], np.float32)
    for weight in (1.0, 2.0):
        weights = next(a for a in model.graph.node[0].attribute if a.name == "target_weights")
        weights.floats[1] = weight
        with epkit.load(model.SerializeToString(), cache=tmp_path) as session:
            assert session(x=x)["y"] == weight
