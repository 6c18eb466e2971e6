"""Text that is known in advance is folded like numbers are, an empty tensor of it too."""

from __future__ import annotations

import pytest

import epkit
from epkit.testing.models import model


@pytest.mark.parametrize("values", [["Ab", "ünï"], []])
@pytest.mark.parametrize("level", ["none", "basic", "all"])
def test_constants_of_strings(values: list[str], level: str) -> None:
    count, text = len(values), ", ".join(f'"{value}"' for value in values)
    graph = model(
        f"""
        g () => (string[{count}] y, seq(string[{count}]) s, optional(string[{count}]) o)
        <string[{count}] words = {{{text}}}> {{
            y = StringConcat(words, words)  s = SequenceConstruct(y)  o = Optional(y)
        }}""",
        opset=20,
    )
    with epkit.load(graph, optimise=level) as session:
        found = session()
    wanted = [value * 2 for value in values]
    assert found["y"].tolist() == found["o"].tolist() == found["s"][0].tolist() == wanted
