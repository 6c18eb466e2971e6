"""``epkit explain --rules``."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from conftest import Cli

from epkit.knobs import STOP_AFTER
from epkit.optimize.levels import LEVELS
from epkit.testing.models import model as from_text

TEXT = """g (float[2, 4] x, float[2, 4] z) => (float[2, 4] y) <float[4] s = {1, 2, 3, 4}, float one = {1}> {
    i = Identity(x)  t = Add(i, z)  n = LayerNormalization <axis = -1> (t, s)  m = Mul(n, one)  y = Relu(m) }"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(STOP_AFTER.name, "-1")  # so that what the command sets is undone
    onnx.save(from_text(TEXT), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_every_rule_is_listed_with_its_mathematics(cli: Cli) -> None:
    listed = cli("explain", "--rules", "--json").json["rules"]
    wanted = {rule.name for phases in LEVELS.values() for phase in phases for rule in phase.rules}
    assert wanted <= {row["name"] for row in listed}
    assert all(row["says"] for row in listed)
    assert "SkipLayerNormalization(x, skip, γ, β)" in cli("explain", "--rules", columns=200).out


def test_what_they_did_is_numbered_and_can_be_cut_short(cli: Cli, path: Path) -> None:
    command = ("explain", path, "--rules", "--optimise", "extended", "--json")
    whole = cli(*command).json["applied"]
    assert "skip_layer_normalization" in [each["rule"] for each in whole]
    for count in range(len(whole) + 1):
        assert cli(*command, "--stop-after", count).json["applied"] == whole[:count]


def test_a_model_or_the_rules_have_to_be_asked_for(cli: Cli) -> None:
    assert cli("explain").code != 0
