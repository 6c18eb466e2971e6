"""Schemas that epkit registers with onnx leave onnx usable for everyone else in the process."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import onnx.defs
from epkit.model.custom_schemas import register_schemas
trilu = onnx.defs.OpSchema("Trilu", "com.acme", 1)
register_schemas([trilu, trilu])
import sys
assert "onnx.reference" not in sys.modules
import onnx.reference
print(onnx.defs.get_schema("Trilu", 1, "com.acme").domain)
"""


def test_the_reference_can_still_be_imported() -> None:
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (found.stdout.strip(), found.returncode) == ("com.acme", 0), found.stderr
