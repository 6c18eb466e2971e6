"""``python -m tests.versions [PART OF A NAME ...]``: every version of every operator, and who vouches for it."""

from __future__ import annotations

import sys
from collections import Counter

from onnx.defs import OpSchema

from .case import all_schemas, is_removed, label
from .table import oracles

WRONG = ("no case", "failed")


def state(schema: OpSchema) -> str:
    """The first oracle that judged, ``refused``, or one of WRONG; what is wrong is printed."""
    if is_removed(schema):
        return "refused, since it was removed"
    try:
        return oracles(schema).split("; ")[0] or "no case"
    except Exception as error:
        print(f"{label(schema)}: {type(error).__name__}: {str(error)[:600]}\n")
        return "failed"


def main(parts: list[str]) -> int:
    """Print what is wrong, then the counts; returns the number of schemas that fail."""
    chosen = [schema for schema in all_schemas() if not parts or any(part in label(schema) for part in parts)]
    counts = Counter(map(state, chosen))
    wrong = sum(counts[name] for name in WRONG)
    for name, count in counts.most_common():
        print(f"{count:>5}  {name}")
    print(f"{len(chosen) - wrong} of {len(chosen)}")
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
