"""``python -m tests.models [--none] [PART OF A NAME ...]`` prints each model's result against onnxruntime.

``--none``: without the optimiser.
"""

from __future__ import annotations

import sys

from .catalogue import CATALOGUE
from .compare import Row, measure, oracle
from .fetch import model_path

HEAD = f"{'model':<52}  nodes  opset     error  load s    run ms   ort ms   ratio  result"


def line(name: str, row: Row, result: str) -> str:
    """One line of the table."""
    return (
        f"{name[-52:]:<52}  {row.nodes:>5}  {row.opset:>5}  {row.error:8.1e}  {row.load_s:6.2f}  "
        f"{row.run_ms:8.2f}  {row.oracle_ms:7.2f}  {row.run_ms / row.oracle_ms:6.1f}  {result}"
    )


def main(parts: list[str], optimise: str = "all") -> int:
    """Print the table, then what does not run or differs; returns how many those are."""
    print(HEAD)
    failed: list[str] = []
    chosen = [(f"{p.name}/{m.stem}", p, m) for p in CATALOGUE for m in p.models]
    chosen = [case for case in chosen if not parts or any(part in case[0] for part in parts)]
    for name, package, model in chosen:
        path, inputs = model_path(package, model), list(model.inputs())
        expected = oracle(path, inputs, model.chaotic)
        row = measure(path, inputs, expected, optimise)
        agrees = "ok" if row.error <= expected.allowed else f"differs, {expected.allowed:.1g} allowed"
        result = row.problem or agrees
        print(line(name, row, result), flush=True)
        if result != "ok":
            failed.append(f"  {name}: {result}")
    print(f"\n{len(chosen) - len(failed)} of {len(chosen)} models agree with onnxruntime", *failed, sep="\n")
    return len(failed)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    level = "none" if "--none" in arguments else "all"
    sys.exit(main([name for name in arguments if name != "--none"], level) > 0)
