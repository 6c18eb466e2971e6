"""Names that are not taken yet."""

from __future__ import annotations

from collections.abc import Container


def free_name(stem: str, taken: Container[str]) -> str:
    """`stem` itself if free, else the first free of stem_1, stem_2, ..."""
    name, count = stem, 0
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    return name
