"""How long loading takes: reading and checking against ``onnx.load``, a whole session against onnxruntime's."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import onnxruntime

import epkit
from epkit.model.check import check
from epkit.model.read import read

from .bert import save_bert
from .measure import alternate, machine

RESULTS = Path(__file__).parent / "results" / "load.md"


def main() -> None:
    """Measure, print and write the table."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for external in (False, True):
            path = Path(folder) / ("external.onnx" if external else "embedded.onnx")
            save_bert(path, external=external)
            seconds = alternate(
                {
                    "epkit read + check": lambda path=path: check(read(path)),
                    "onnx.load": lambda path=path: onnx.load(path),
                    "epkit session": lambda path=path: epkit.load(path).close(),
                    "onnxruntime session": lambda path=path: onnxruntime.InferenceSession(path, options),
                },
                rounds=9,
            )
            kind = "external" if external else "embedded"
            size = sum(file.stat().st_size for file in Path(folder).glob(f"{path.name}*")) / 1e6
            rows.append((f"BERT-base, {size:.0f} MB, {kind} weights", seconds))
    text = table(rows)
    print(text)
    RESULTS.write_text(text, encoding="utf-8")


def table(rows: list[tuple[str, dict[str, float]]]) -> str:
    """The results as Markdown; times in seconds, medians."""
    names = list(rows[0][1])
    lines = [
        "# Loading",
        "",
        f"`python -m benchmarks load`; medians of 9 alternating rounds. {machine()}.",
        "",
        "| model | " + " | ".join(names) + " | read + check / onnx.load | session / onnxruntime |",
        "|---|" + "---|" * (len(names) + 2),
    ]
    for model, seconds in rows:
        times = " | ".join(f"{seconds[name]:.3f} s" for name in names)
        reading = seconds["epkit read + check"] / seconds["onnx.load"]
        session = seconds["epkit session"] / seconds["onnxruntime session"]
        lines.append(f"| {model} | {times} | {reading:.2f} | {session:.2f} |")
    return "\n".join(lines) + "\n"
