"""Build every package as a wheel, install the wheels into a new environment, and use them there.

python tests/packaging/check_wheels.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "sdk",
    *(f"plugins/{name}" for name in ("cpu", "contrib", "npu_sim", "opencl", "cuda")),
    "conformance",
    "examples/epkit-acme",
)
SCRIPT = """
import numpy as np, onnx.parser, epkit
model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 21]> g (float[N] x) => (float[N] y)'
                                ' { a = Relu(x)  y = Celu(a) }')
with epkit.load(model, ["acme", "cpu"]) as session:
    assert session.placement.counts() == {"acme": 1, "cpu": 1}, session.placement
    assert session(x=np.array([-1, 2], np.float32))["y"].tolist() == [0, 2]
"""


def main() -> None:
    """Raise if any step fails."""
    with tempfile.TemporaryDirectory() as folder:
        wheels = build(Path(folder) / "wheels")
        python = environment(Path(folder) / "venv")
        run(python, "-m", "pip", "install", "--quiet", *map(str, wheels))
        run(python, "-c", SCRIPT)
        listed = json.loads(run(python, "-m", "epkit.cli", "providers", "--json"))
        states = {item["name"]: item["state"] for item in listed}
        hardware = {name: states.pop(name) for name in ("opencl", "cuda")}
        assert set(hardware.values()) <= {"ready", "absent"}, hardware
        assert states == dict.fromkeys(("acme", "cpu", "npu_sim", "null"), "ready"), states
    print(f"{len(wheels)} wheels built, installed and used")


def build(folder: Path) -> list[Path]:
    """One wheel a package."""
    for package in PACKAGES:
        run(
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "-w",
            str(folder),
            str(ROOT / package),
        )
    return sorted(folder.glob("*.whl"))


def environment(folder: Path) -> str:
    """A new virtual environment; returns its Python."""
    venv.create(folder, with_pip=True)
    return str(folder / "bin" / "python")


def run(*command: str) -> str:
    """Run a command outside the checkout; what it prints, or an error with everything that it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tempfile.gettempdir())
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:4])} failed\n{done.stdout}\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
