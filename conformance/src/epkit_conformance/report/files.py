"""Writing the forms of a report into a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epkit.errors import InputError

from ..catalogue import all_cases
from ..certificate import make_certificate
from ..certification import judge
from ..record import Report
from .badge import badge_of
from .html import report_page
from .junit import junit_xml


def write_all(report: Report, folder: Path) -> list[Path]:
    """report.html, report.json, junit.xml, badge.svg; certificate.json if the run was a whole one.

    Raises:
        InputError: if the folder cannot be written.
    """
    texts = {
        "report.html": report_page(report),
        "report.json": json_text(report.to_json()),
        "junit.xml": junit_xml(report),
        "badge.svg": badge_of(judge(report)),
    }
    if report.complete:
        texts["certificate.json"] = json_text(make_certificate(report, all_cases()))
    else:
        (folder / "certificate.json").unlink(missing_ok=True)  # an older one would seem to be of this run
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def json_text(values: Mapping[str, Any]) -> str:
    """JSON with one line for each entry of a long list, so that it stays small and can be compared."""
    parts = []
    for key, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            items = ",\n".join(f"  {json.dumps(item, allow_nan=False)}" for item in map(_finite, value))
            text = f"[\n{items}\n ]"
        else:
            text = json.dumps(_finite(value), allow_nan=False)
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _finite(value: Any) -> Any:
    """What JSON has no number for becomes the largest that it has."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return 1.7976931348623157e308
    return value


def write_text(path: Path, text: str) -> None:
    """Write a file, its folder included.

    Raises:
        InputError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}", remedy="choose another place") from None
