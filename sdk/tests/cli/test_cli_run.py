"""``epkit run``: inputs from files and out of nothing, outputs, comparison, profile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from conftest import Cli, TextModel
from onnx import numpy_helper

X = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
BIAS = np.full((2, 3), 0.5, np.float32)
Y = np.maximum(X, 0) + BIAS


def floats(*values: float) -> np.ndarray[Any, Any]:
    return np.array(values, np.float32)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with the inputs in every form."""
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "bias.npy", BIAS)
    np.savez(tmp_path / "both.npz", x=X, bias=BIAS)
    (tmp_path / "x.pb").write_bytes(numpy_helper.from_array(X).SerializeToString())
    return tmp_path


def save_test_data(folder: Path, **outputs: np.ndarray[Any, Any]) -> Path:
    folder.mkdir()
    for kind, arrays in (("input", {"x": X, "bias": BIAS}), ("output", outputs)):
        for number, (name, array) in enumerate(arrays.items()):
            onnx.save_tensor(numpy_helper.from_array(array, name), folder / f"{kind}_{number}.pb")
    return folder


def outputs_of(cli: Cli, model: Path, *arguments: object) -> dict[str, np.ndarray[Any, Any]]:
    target = model.parent / "out.npz"
    result = cli("run", model, "--output", target, *arguments)
    assert result.code == 0, result.err
    with np.load(target) as archive:
        return dict(archive)


@pytest.mark.parametrize(
    "given",
    [
        ("x={}/x.npy", "bias={}/bias.npy"),
        ("{}/x.npy", "{}/bias.npy"),
        ("{}/bias.npy", "x={}/x.pb"),
        ("{}/both.npz",),
    ],
    ids=["named", "in order", "mixed", "archive"],
)
def test_inputs_from_files(cli: Cli, model: Path, files: Path, given: tuple[str, ...]) -> None:
    options = [part for item in given for part in ("--input", item.format(files))]
    outputs = outputs_of(cli, model, *options)
    np.testing.assert_array_equal(outputs["y"], Y)
    np.testing.assert_allclose(outputs["total"], Y.sum())


def test_inputs_that_are_not_given_are_invented_to_fit(cli: Cli, model: Path, files: Path) -> None:
    result = cli("run", model, "--input", f"{files}/x.npy", "--json")
    x, bias = result.json["cases"][0]["inputs"]
    assert (x["from"], bias["from"]) == (f"{files}/x.npy", "invented")
    assert bias["shape"] == [2, 3]  # the batch of x


def test_dim_sets_a_symbolic_dimension_of_invented_inputs(cli: Cli, model: Path) -> None:
    (case,) = cli("run", model, "--dim", "batch=5", "--json").json["cases"]
    assert [item["shape"] for item in (*case["inputs"], *case["outputs"])] == [[5, 3], [5, 3], [5, 3], []]


def test_fix_makes_the_dimension_part_of_the_model(cli: Cli, model: Path, files: Path) -> None:
    assert cli("run", model, "--fix", "batch=4", "--json").json["cases"][0]["inputs"][0]["shape"] == [4, 3]
    refused = cli("run", model, "--fix", "batch=4", "--input", f"{files}/both.npz")
    assert refused.code == 1
    assert "the model wants 4" in refused.err


def test_the_seed_decides_the_invented_values(cli: Cli, model: Path) -> None:
    first, same, other = (outputs_of(cli, model, "--seed", seed)["y"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


def test_outputs_can_be_inputs_again_narrow_types_included(
    cli: Cli, text_model: TextModel, tmp_path: Path
) -> None:
    model = text_model(
        """graph (bfloat16[n] x, string[n] s) => (bfloat16[n] x2, string[n] s2) {
            x2 = Identity(x)
            s2 = Identity(s)
        }"""
    )
    values = np.array([1, 2.5, -3], ml_dtypes.bfloat16)
    np.savez(tmp_path / "in.npz", x=values, s=np.array(["a", "ü", ""]))
    outputs = outputs_of(cli, model, "--input", tmp_path / "in.npz")
    np.testing.assert_array_equal(outputs["x2"].view(ml_dtypes.bfloat16), values)
    assert outputs["s2"].tolist() == ["a", "ü", ""]


# ---- test data ----


def test_data_that_agree(cli: Cli, model: Path, tmp_path: Path) -> None:
    data = save_test_data(tmp_path / "test_data_set_0", y=Y, total=Y.sum())
    result = cli("run", model, "--data", data)
    assert result.code == 0
    assert result.out.count("pass") == 2
    told = cli("run", model, "--data", data, "--json").json
    assert told["passed"] is True
    assert [item["name"] for item in told["cases"][0]["comparisons"]] == ["y", "total"]


def test_data_that_differ_fail_and_say_by_how_much(cli: Cli, model: Path, tmp_path: Path) -> None:
    data = save_test_data(tmp_path / "test_data_set_0", y=Y + floats(0, 0, 0.25), total=Y.sum())
    result = cli("run", model, "--data", data)
    assert result.code == 1
    assert "FAIL" in result.out and "2 of 6 differ" in result.out and "0.25" in result.out
    wide = cli("run", model, "--data", data, "--atol", "0.3", "--json")
    assert (wide.code, wide.json["passed"]) == (0, True)


def test_every_set_of_a_folder_is_run(cli: Cli, model: Path, tmp_path: Path) -> None:
    save_test_data(tmp_path / "test_data_set_0", y=Y, total=Y.sum())
    save_test_data(tmp_path / "test_data_set_1", y=Y, total=Y.sum() + 1)
    result = cli("run", model, "--data", tmp_path, "--json")
    assert [(case["name"], case["passed"]) for case in result.json["cases"]] == [
        ("test_data_set_0", True),
        ("test_data_set_1", False),
    ]
    assert result.code == 1


@pytest.mark.parametrize("given", [floats(1, 2), None], ids=["element", "empty"])
def test_data_with_sequences_and_optionals(
    cli: Cli, text_model: TextModel, tmp_path: Path, given: np.ndarray[Any, Any] | None
) -> None:
    model = text_model(
        """graph (seq(float[n]) s, optional(float[n]) o) => (seq(float[n]) t, bool[] has) {
            t = SequenceErase(s)
            has = OptionalHasElement(o)
        }"""
    )
    items = [floats(1), floats(2, 3), floats()]
    kind = onnx.OptionalProto.TENSOR if given is None else None
    protos: dict[str, Any] = {
        "input_0": numpy_helper.from_list(items),
        "input_1": numpy_helper.from_optional(given, dtype=kind),
        "output_0": numpy_helper.from_list(items[:2]),
        "output_1": numpy_helper.from_array(np.array(given is not None)),
    }
    for name, proto in protos.items():
        (tmp_path / f"{name}.pb").write_bytes(proto.SerializeToString())
    result = cli("run", model, "--data", tmp_path, "--json")
    assert result.json["passed"] is True
    assert len(result.json["cases"][0]["comparisons"]) == 2


def test_a_tensor_is_found_by_its_name_before_its_number(cli: Cli, model: Path, tmp_path: Path) -> None:
    data = save_test_data(tmp_path / "test_data_set_0", total=Y.sum(), y=Y)  # the other way round
    assert cli("run", model, "--data", data).code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--input", "nope.npy"], "nope.npy cannot be read: it does not exist"),
        (["--input", "z={}/x.npy"], "the model has no input 'z'"),
        (["--input", "x={}/broken.pb"], "it is no serialized tensor(float)"),
        (["--input", "x={}/pickled.npy"], "allow_pickle=False"),
        (
            ["--input", "{}/x.npy", "--input", "{}/x.npy", "--input", "{}/x.npy"],
            "3 files without a name, but 2",
        ),
        (["--data", "{}"], "holds no ONNX test data"),
        (["--dim", "bach=2"], "the symbolic dimensions are: batch"),
    ],
)
def test_what_does_not_fit_is_explained(
    cli: Cli, model: Path, files: Path, arguments: list[str], said: str
) -> None:
    (files / "broken.pb").write_bytes(b"\xff\xff")
    np.save(files / "pickled.npy", np.array([{}], object))
    result = cli("run", model, *(item.format(files) for item in arguments))
    assert result.code == 1
    assert said in result.err
    assert result.out == ""


# ---- time ----


def test_repeat_times_each_run(cli: Cli, model: Path) -> None:
    assert len(cli("run", model, "--repeat", 3, "--json").json["cases"][0]["seconds"]) == 3
    assert "median of the next 2" in cli("run", model, "--repeat", 3).out


def test_the_trace_shows_loading_and_one_run(cli: Cli, model: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    result = cli("run", model, "--provider", "null", "--profile", trace, "--json")
    events = json.loads(trace.read_text())["traceEvents"]
    assert {"read", "compile"} <= {event["name"] for event in events if event["cat"] == "load"}
    ran = [event["args"]["provider"] for event in events if event["cat"] == "partition"]
    assert "null" in ran and len(ran) == sum(result.json["partitions"].values())
    assert sum(row["calls"] for row in result.json["profile"]) >= 2


def test_several_providers_with_options_and_placement(cli: Cli, model: Path) -> None:
    told = cli("run", model, "-p", "null", "--json").json
    assert told["nodes"]["null"] == 1
    assert sum(told["nodes"].values()) == 3
    refused = cli("run", model, "-p", "null:fast=1")
    assert (refused.code, "no option 'fast'" in refused.err) == (1, True)


def test_a_provider_that_runs_nothing_says_why(cli: Cli, text_model: TextModel) -> None:
    model = text_model("g (float[2] x) => (float[2] y) { a = Abs(x)  y = Exp(a) }")
    told = cli("run", model, "-p", "null")
    assert told.code == 0
    assert "null runs none of the nodes" in told.err and "1 x Abs: null runs only Relu, Neg" in told.err
    assert "none of the nodes" not in cli("run", model).err
