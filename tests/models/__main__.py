"""``python -m tests.models [PART OF A NAME ...]``: every real model on the CPU provider, against onnxruntime."""

from __future__ import annotations

import sys

from .catalogue import CATALOGUE
from .compare import TOLERANCE, measure
from .fetch import model_path

HEAD = f"{'model':<52} {'nodes':>5}  {'error':>8}  {'load s':>6}  {'run ms':>8}  {'ort ms':>7}  {'ratio':>5}  result"


def main(parts: list[str], optimise: str = "basic") -> int:
    """Print the table, then what does not run yet; returns the number of models that fail."""
    print(HEAD)
    failed: list[str] = []
    for package in CATALOGUE:
        for model in package.models:
            name = f"{package.name}/{model.path.split('/', 1)[-1].removesuffix('.onnx')}"
            if parts and not any(part in name for part in parts):
                continue
            row = measure(model_path(package, model), list(model.inputs()), optimise)
            print(
                f"{name[-52:]:<52} {row.nodes:>5}  {row.error:8.1e}  {row.load_s:6.2f}  {row.run_ms:8.2f}  "
                f"{row.oracle_ms:7.2f}  {row.run_ms / row.oracle_ms:5.1f}  {row.result}",
                flush=True,
            )
            if row.result != "ok":
                failed.append(f"  {name}: {row.result}")
    print(f"\nwithin {TOLERANCE:g} of onnxruntime, all but {len(failed)}" + "".join(f"\n{line}" for line in failed))
    return len(failed)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    level = "none" if "--none" in arguments else "basic"
    sys.exit(main([name for name in arguments if name != "--none"], level) > 0)
