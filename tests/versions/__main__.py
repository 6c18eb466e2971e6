"""``python -m tests.versions [PART OF A NAME ...]``: every version of every operator, and who vouches for it."""

from __future__ import annotations

import sys
from collections import Counter

from . import families as families
from .case import all_schemas, cases_of, is_removed, label
from .run import check


def main(parts: list[str]) -> int:
    """Print what differs or is missing, then the counts; returns the number of schemas that fail."""
    counts: Counter[str] = Counter()
    for schema in all_schemas():
        name = label(schema)
        if parts and not any(part in name for part in parts):
            continue
        if is_removed(schema):
            counts["refused, since it was removed"] += 1
            continue
        cases = cases_of(schema)
        if not cases:
            counts["NO CASE"] += 1
            continue
        oracles = []
        for index, case in enumerate(cases):
            try:
                oracles.append(check(case, schema) or "NO ORACLE")
                if oracles[-1] == "NO ORACLE":
                    print(f"{name} case {index}: no oracle")
            except Exception as error:
                oracles.append("FAILED")
                print(f"{name} case {index}: {type(error).__name__}: {str(error)[:600]}\n")
        if parts:
            print(name, oracles)
        counts.update(set(oracles) & {"FAILED", "NO ORACLE"} or {oracles[0]})
    print(counts)
    return counts["FAILED"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
