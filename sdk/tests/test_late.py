"""Memory and time of an import: what nobody needs is not imported, and is there when somebody asks."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
import epkit
epkit.load
assert "onnx" not in sys.modules
import onnx_ir
print([name for name in sys.modules if name.partition(".")[0] == "sympy"])
import onnx_ir as ir
dim = ir.SymbolicDim("n") + 1
import sympy
print(dim, dim.evaluate({"n": 2}), ir.SymbolicDim(sympy.Symbol("m") * 2), sympy is sys.modules["sympy"])
import onnx_ir._symbolic_shapes
print(onnx_ir._symbolic_shapes.parse_symbolic_expression("max(a, 3)"))
"""


def test_onnx_ir_comes_without_sympy_and_uses_it_when_asked() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "n + 1 3 2*m True", "Max(3, a)"]


ARCHIVES = """
import sys
import epkit
epkit.load
import onnx
from onnx_ir.passes.common import DeduplicateInitializersPass
print([name for name in ("_hashlib", "tarfile", "argparse") if name in sys.modules])
import tarfile
print(onnx.utils.tarfile.TarFile is tarfile.TarFile, onnx.gen_proto.convert.__name__)
from onnx_ir.passes.common import initializer_deduplication
print(initializer_deduplication.hashlib.sha512(b"").hexdigest()[:4])
"""


def test_onnx_comes_without_archives_and_openssl_and_uses_them_when_asked() -> None:
    done = subprocess.run([sys.executable, "-c", ARCHIVES], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "True convert", "cf83"]
