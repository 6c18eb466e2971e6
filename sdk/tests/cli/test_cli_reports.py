"""``epkit inspect``, ``explain``, ``providers`` and ``bench``: what they tell."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import onnx.parser
import pytest
from conftest import Cli, TextModel

from epkit.backend import registry
from epkit.pipeline import STAGES

# ---- inspect ----


def test_inspect_tells_what_is_in_the_file(cli: Cli, model: Path) -> None:
    told = cli("inspect", model, "--json").json
    assert told["ir_version"] == 8
    assert told["opsets"] == {"ai.onnx": 18}
    assert told["operators"] == {"Relu": 1, "Add": 1, "ReduceSum": 1}
    assert told["inputs"][0] == {"name": "x", "type": "tensor(float)", "shape": ["batch", 3]}
    assert told["outputs"][1] == {"name": "total", "type": "tensor(float)", "shape": []}
    assert told["problem"] is None
    text = cli("inspect", model).out
    assert "3 nodes" in text and "[batch, 3]" in text


def test_inspect_counts_weights_and_the_nodes_of_functions(cli: Cli, text_model: TextModel) -> None:
    model = text_model(
        """graph (float[n] x) => (float[n] y) <float[3] w = {1, 2, 3}> { t = local.twice(x) y = Mul(t, w) }
        <domain: "local", opset_import: ["": 18]> twice (a) => (b) { b = Add(a, a) }""",
        '<ir_version: 8, opset_import: ["": 18, "local": 1]>',
    )
    told = cli("inspect", model, "--json").json
    assert (told["weights"], told["weight_bytes"], told["functions"]) == (1, 12, ["local.twice"])
    assert told["operators"] == {"local.twice": 1, "Mul": 1, "Add": 1}


@pytest.mark.parametrize("stage", STAGES)
def test_inspect_after_each_stage(cli: Cli, model: Path, stage: str) -> None:
    result = cli("inspect", model, "--after", stage, "--provider", "null", "--json")
    assert (result.json["stage"], result.code) == (stage, 0)
    text = cli("inspect", model, "--after", stage, "--provider", "null").out
    without_times = [re.sub(r"[\d.]+ ms", "", told).strip() for told in (text, result.json["text"])]
    assert without_times[0] == without_times[1] != ""


def test_inspect_shows_a_model_that_breaks_a_rule_and_says_which(cli: Cli, text_model: TextModel) -> None:
    model = text_model(
        "graph (float[n] x) => (float[n] y) { y = elsewhere.Magic(x) }",
        '<ir_version: 8, opset_import: ["": 18, "elsewhere": 1]>',
    )
    result = cli("inspect", model)
    assert result.code == 1
    assert "elsewhere.Magic" in result.out
    assert "error: " in result.err and "elsewhere::Magic" in result.err
    assert "Magic" in cli("inspect", model, "--json").json["problem"]


def test_inspect_of_an_unknown_stage_lists_them(cli: Cli, model: Path) -> None:
    result = cli("inspect", model, "--after", "linking")
    assert result.code == 2
    assert "partition" in result.err


# ---- explain ----


def test_explain_counts_and_groups(cli: Cli, model: Path) -> None:
    told = cli("explain", model, "-p", "null", "--json").json
    assert told["counts"]["null"] == told["partitions"]["null"] == 1
    (group,) = told["refusals"]
    assert (group["provider"], group["code"], group["nodes"]) == ("null", "no-kernel", 2)
    assert group["operators"] == {"Add": 1, "ReduceSum": 1}
    assert {node["operator"]: node["provider"] for node in told["nodes"]}["Relu"] == "null"
    text = cli("explain", model, "-p", "null").out
    assert "null runs only Relu, Neg" in text and "(fallback)" in text


def test_explain_lists_every_node_on_request(cli: Cli, model: Path) -> None:
    short, long = (
        cli("explain", model, "-p", "null", *extra, columns=120).out for extra in ((), ("--nodes",))
    )
    assert long.startswith(short)
    assert long.count("null: null runs only") == 2


def test_explain_without_fallback_names_the_nodes_left(cli: Cli, model: Path) -> None:
    result = cli("explain", model, "-p", "null", "--fallback", "error")
    assert (result.code, result.out) == (1, "")
    assert "2 node(s) have no provider" in result.err


# ---- providers ----

PLUGINS = {
    "torn": "raise RuntimeError('half a driver')",
    "far": """
import epkit.backend as ep
class Far(ep.KernelProvider):
    name, version = "far", "3.1"
    def devices(self): return ep.Devices((), "no card in any slot", "buy one")
@ep.hookimpl
def epkit_providers(): return [Far]
""",
}


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two installed packages, one of which breaks when imported and one of which finds no hardware."""
    for name, source in PLUGINS.items():
        (tmp_path / f"plugin_{name}.py").write_text(source)
        info = tmp_path / f"epkit_{name}-0.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: epkit-{name}\nVersion: 0.5\n")
        (info / "entry_points.txt").write_text(f"[{registry.PROVIDER_GROUP}]\n{name} = plugin_{name}\n")
    monkeypatch.syspath_prepend(tmp_path)
    fresh = registry.Registry(lambda group: importlib.metadata.entry_points(group=group))
    monkeypatch.setattr("epkit.discovery.default", fresh)


def test_providers_in_every_state(cli: Cli, plugins: None) -> None:
    states = {state["name"]: state for state in cli("providers", "--json").json}
    assert states["null"]["state"] == "ready"
    assert (states["torn"]["state"], states["torn"]["package"]) == ("broken", "epkit-torn")
    assert "half a driver" in states["torn"]["reason"]
    assert (states["far"]["state"], states["far"]["version"]) == ("absent", "3.1")
    result = cli("providers")
    assert result.code == 0
    for said in ("half a driver", "no card in any slot", "buy one", "null:0 (example)"):
        assert said in result.out


def test_knobs_and_their_values(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EPKIT_PROVIDERS", "null,far")
    monkeypatch.setenv("EPKIT_CHECKED", "perhaps")
    rows = {row["name"]: row for row in cli("providers", "--knobs", "--json").json}
    assert rows["EPKIT_PROVIDERS"]["value"] == ["null", "far"]
    assert "perhaps" in rows["EPKIT_CHECKED"]["problem"]
    assert "EPKIT_CHECKED" in cli("providers", "--knobs").out


# ---- bench ----


def test_bench_compares_configurations_in_the_same_process(cli: Cli, model: Path) -> None:
    onnx.save(onnx.parser.parse_model(model.read_text()), model.with_suffix(".onnx"))
    arguments = (
        "bench",
        model.with_suffix(".onnx"),
        "-p",
        "null",
        "-p",
        "null:",
        "--against",
        "onnxruntime",
        "--runs",
        3,
    )
    first, second, peer = cli(*arguments, "--json").json["configurations"]
    assert first["ratio"] == 1.0
    assert second["ratio"] == pytest.approx(second["median_seconds"] / first["median_seconds"])
    assert peer["name"].startswith("onnxruntime")
    assert [len(item["seconds"]) for item in (first, second, peer)] == [3, 3, 3]
    assert peer["difference"] < 1e-6
    assert "1.00x" in cli(*arguments).out


@pytest.mark.parametrize(
    ("peer", "said"), [("abacus", "the peers are onnxruntime"), ("onnxruntime", "cannot load")]
)
def test_bench_against_a_peer_that_cannot(cli: Cli, model: Path, peer: str, said: str) -> None:
    result = cli("bench", model, "--against", peer)  # a text format, which only we read
    assert (result.code, said in result.err) == (1, True)
