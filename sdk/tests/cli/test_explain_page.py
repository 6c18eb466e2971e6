"""``epkit explain --html``: the layout, the page and the advice."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from epkit.api import make_settings
from epkit.backend import Refusal
from epkit.cli._layout import lay_out
from epkit.cli._page import page
from epkit.cli.app import app
from epkit.partition.advice import advise
from epkit.pipeline import stages
from epkit.planning import Plan
from epkit.testing.awkward import AwkwardProvider, by_chance
from epkit.testing.device import FakeDevice, device_provider
from epkit.testing.models import random_model
from epkit.testing.plugins import registry_of


@given(st.integers(0, 10**6), st.integers(0, 40))
def test_nodes_stand_below_what_they_read_and_nowhere_on_each_other(seed: int, size: int) -> None:
    rng = random.Random(seed)
    producers = {
        n: sorted({rng.randrange(n) for _ in range(rng.randrange(3))} if n else ()) for n in range(size)
    }
    layout = lay_out(range(size), producers)
    for node, found in producers.items():
        assert all(layout.places[p][1] < layout.places[node][1] for p in found)
    by_layer: dict[int, list[float]] = {}
    for x, layer in layout.places.values():
        assert 0 <= layer < layout.layers
        assert -1e-9 <= x <= layout.columns
        by_layer.setdefault(layer, []).append(x)
    for row in map(sorted, by_layer.values()):
        assert all(b - a > 1 - 1e-6 for a, b in zip(row, row[1:], strict=False))


def plan_of(seed: int) -> Plan:
    far = device_provider("far", FakeDevice(), by_chance(seed, 0.5))
    settings = make_settings(["far"], "cpu", "none", None, (), None, None)
    model = random_model(random.Random(seed), 12)
    steps = stages(model, settings, registry_of(far))
    plan = next(value for name, value in steps if name == "plan")
    steps.close()
    assert isinstance(plan, Plan)
    return plan


class Tags(HTMLParser):
    """Counts the nodes in each view of each graph, and minds that elements are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.views: list[list[int]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "section":
            self.views.append([])
        if tag == "div" and given.get("class") == "drawing":
            self.views[-1].append(0)
        if tag == "g":
            self.views[-1][-1] += len(json.loads(given["data-told"] or "[]"))
        if tag not in ("meta", "input", "rect", "path", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ("rect", "path", "circle")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("seed", range(4))
def test_the_page_shows_every_node_once_in_each_view_and_loads_nothing(seed: int) -> None:
    plan = plan_of(seed)
    text = page("a <model>", plan)
    tags = Tags()
    tags.feed(text)
    assert not tags.open
    assert sum(views[0] for views in tags.views) == len(plan.placement.nodes)
    assert all(len(set(views)) == 1 for views in tags.views)
    assert "a &lt;model&gt;" in text
    assert not re.search(r"(src|href)\s*=|url\(|@import|http", text)


def test_a_chain_of_one_provider_is_one_box() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[4] x) => (float[4] y) { a = Neg (x) b = Abs (a) c = Relu (b) d = Tanh (b) e = Exp (d) y = Add (c, e) }
    """)
    settings = make_settings([], "cpu", "none", None, (), None, None)
    steps = stages(model, settings, registry_of())
    plan = next(value for name, value in steps if name == "plan")
    steps.close()
    assert isinstance(plan, Plan)
    text = page("a model", plan)
    assert "folded: 4 boxes" in text
    assert text.count("Neg … Abs") == 1 and text.count("Tanh … Exp") == 1


def advice_on(code: str, reason: str, body: str = "y = Relu (x)") -> list[tuple[str, int, str]]:
    """What is advised where a provider refuses every node in this way."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[batch,4] x) => (float[batch,4] y) {{ {body} }}
    """)

    class Fixed(AwkwardProvider):
        name = "fixed"

        def claim(self, graph):  # type: ignore[no-untyped-def]
            for node in graph.nodes:
                yield Refusal(node, code, reason)

    settings = make_settings(["fixed"], "cpu", "none", None, (), None, None)
    steps = stages(model, settings, registry_of(Fixed))
    plan = next(value for name, value in steps if name == "plan")
    steps.close()
    assert isinstance(plan, Plan)
    return [(advice.provider, advice.nodes, advice.text) for advice in advise(plan.partitioned)]


def test_advice_names_the_dimension_that_must_be_fixed() -> None:
    ((provider, nodes, text),) = advice_on("dynamic-shape", "dimension batch is symbolic")
    assert (provider, nodes) == ("fixed", 1)
    assert "--fix batch=N" in text


def test_advice_on_types_is_one_line_for_all_operators() -> None:
    ((_, nodes, text),) = advice_on("dtype", "not this type", "a = Relu (x) b = Relu (a) y = Tanh (b)")
    assert nodes == 3
    assert text == "convert the model to a type that fixed takes: Relu (2), Tanh (1) in float32"


def test_another_policy_is_no_advice_where_the_provider_itself_finds_a_node_too_dear() -> None:
    assert advice_on("cost", "a copy would cost more") == []


def test_the_command_writes_page_and_plan(tmp_path: Path) -> None:
    model, html, plan = tmp_path / "m.onnx", tmp_path / "p.html", tmp_path / "plan.json"
    onnx.save(random_model(random.Random(1), 6), model)
    arguments = ["explain", str(model), "-p", "cpu", "--html", str(html), "--run", "--save", str(plan)]
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 0, told.output
    assert " ms</text>" in html.read_text()
    told = CliRunner().invoke(app, ["run", str(model), "-p", "cpu", "--placement", str(plan)])
    assert told.exit_code == 0, told.output
