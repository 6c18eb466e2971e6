"""``epkit providers``: every installed provider, its state, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from .. import knobs
from ..aliases import DEFAULT_FALLBACK
from ..errors import OptionError
from . import _render
from ._options import Debug, Json

if TYPE_CHECKING:
    from .. import ProviderState


def providers(
    list_knobs: Annotated[
        bool, typer.Option("--knobs", help="list the environment variables instead")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the installed providers and their devices."""
    if list_knobs:
        _knobs(as_json)
        return
    from .. import providers as installed

    states = installed()
    if as_json:
        _render.emit([asdict(state) for state in states])
        return
    _table(states)
    for state in states:
        _details(state)


def _table(states: tuple[ProviderState, ...]) -> None:
    rows: list[list[_render.Cell]] = []
    for state in states:
        coloured = Text(state.state, _render.STATE_STYLES.get(state.state, ""))
        devices = "\n".join(f"{device.name} ({device.kind})" for device in state.devices.found) or "-"
        sizes = "\n".join(_render.memory(device.memory_bytes) for device in state.devices.found) or "-"
        rows.append([state.name, coloured, devices, sizes, state.version, state.package])
    if rows:
        _render.table(["provider", "state", "devices", ">memory", "version", "package"], rows)
    else:
        _render.line(f"no providers are installed; try: pip install epkit-{DEFAULT_FALLBACK}")


def _details(state: ProviderState) -> None:
    """Why it is not ready and what helps, its devices in words, its options."""
    descriptions = [
        f"{device.name}: {device.description}" for device in state.devices.found if device.description
    ]
    told = [
        ("reason", [state.reason]),
        ("try", [state.remedy]),
        ("device", descriptions),
        ("option", list(state.options)),
    ]
    lines = [(label, text) for label, texts in told for text in texts if text]
    if lines:
        _render.heading(state.name)
        for label, text in lines:
            _render.line(f"  {label + ':':<8}{text}")


def _knobs(as_json: bool) -> None:
    rows = [_knob(knob) for knob in knobs.ALL]
    if as_json:
        _render.emit(rows)
        return
    shown = [
        [row["name"], row["problem"] or repr(row["value"]), repr(row["default"]), row["help"]] for row in rows
    ]
    _render.table(["variable", "now", "default", "meaning"], shown)


def _knob(knob: knobs.Knob[Any]) -> dict[str, Any]:
    problem = ""
    value: Any = None
    try:
        value = knob.get()
    except OptionError as error:
        problem = error.what
    return {"name": knob.name, "value": value, "default": knob.default, "problem": problem, "help": knob.help}
