"""``python -m benchmarks load``: measure, print the table, keep it in ``benchmarks/results/``."""

from __future__ import annotations

import sys

from . import cpu, cuda, load, memory, opencl, optimiser, placement, trees

BENCHMARKS = {
    "cuda": cuda.main,
    "cpu": lambda: cpu.main(sys.argv[2:]),
    "load": lambda: load.main(sys.argv[2:]),
    "memory": lambda: memory.main(sys.argv[2:]),
    "opencl": opencl.main,
    "optimiser": lambda: optimiser.main(sys.argv[2:]),
    "placement": lambda: placement.main(sys.argv[2:]),
    "trees": trees.main,
}


def main() -> None:
    """Run the named benchmark."""
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHMARKS:
        raise SystemExit(f"usage: python -m benchmarks {{{','.join(BENCHMARKS)}}} [--quick]")
    BENCHMARKS[sys.argv[1]]()


main()
