"""The inputs of a run: given as files, taken from ONNX test data, or invented."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InputError, Where
from ..runtime.session import Session
from ..runtime.value_info import ValueInfo
from ._files import read_npz, read_proto, read_value
from ._invent import Inventor, check_sizes


@dataclass(frozen=True)
class Case:
    """The inputs of one run, where each came from, and the outputs expected if they are known."""

    name: str
    feeds: dict[str, Any]
    sources: dict[str, str]
    expected: dict[str, Any] = field(default_factory=dict)


def cases(
    session: Session,
    given: Sequence[str] = (),
    data: Path | None = None,
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
) -> list[Case]:
    """One case, or one for each set of test data.

    Args:
        session: whose inputs they are.
        given: ``NAME=file``, or files in the order of the inputs; an ``.npz`` holds several by name.
        data: a folder ``test_data_set_N``, or a folder of such.
        sizes: of symbolic dimensions, for what is invented.
        seed: for what is invented.

    Raises:
        InputError, OptionError: if a file, a name or a size does not fit.
    """
    check_sizes(sizes or {}, session.inputs)
    files = _given(given, session.inputs)
    found = _data_sets(data, session) if data is not None else [Case("", {}, {})]
    return [_completed(case, files, session.inputs, Inventor(sizes or {}, seed)) for case in found]


def _completed(
    case: Case, files: Mapping[str, tuple[Any, str]], infos: Sequence[ValueInfo], inventor: Inventor
) -> Case:
    feeds = {**case.feeds, **{name: value for name, (value, _) in files.items()}}
    sources = {**case.sources, **{name: source for name, (_, source) in files.items()}}
    for info in infos:
        inventor.learn(info, feeds.get(info.name))
    for info in infos:
        if info.name not in feeds and (value := inventor.make(info)) is not None:
            feeds[info.name] = value
            sources[info.name] = "invented"
    return Case(case.name, feeds, sources, case.expected)


# ---- files given one by one ----


def _given(items: Sequence[str], infos: Sequence[ValueInfo]) -> dict[str, tuple[Any, str]]:
    """Value and source by input name."""
    by_name = {info.name: info for info in infos}
    found: dict[str, tuple[Any, str]] = {}
    unnamed: list[str] = []
    for item in items:
        name, equals, path = item.partition("=")
        if equals and (name in by_name or not Path(item).exists()):
            found[name] = (read_value(Path(path), _declared(name, by_name)), path)
        elif item.endswith(".npz"):
            arrays = read_npz(Path(item), by_name)
            found.update({name: (array, item) for name, array in arrays.items() if _declared(name, by_name)})
        else:
            unnamed.append(item)
    free = [info for info in infos if info.name not in found]
    if len(unnamed) > len(free):
        raise InputError(
            f"{len(unnamed)} files without a name, but {len(free)} inputs are left",
            remedy=f"the inputs are: {_listed(infos)}",
        )
    for info, path in zip(free, unnamed, strict=False):
        found[info.name] = (read_value(Path(path), info), path)
    return found


def _declared(name: str, by_name: Mapping[str, ValueInfo]) -> ValueInfo:
    if name not in by_name:
        listed = _listed(list(by_name.values()))
        raise InputError(f"the model has no input {name!r}", remedy=f"the inputs are: {listed}")
    return by_name[name]


def _listed(infos: Sequence[ValueInfo]) -> str:
    return "; ".join(map(str, infos)) or "none"


# ---- ONNX test data ----


def _data_sets(folder: Path, session: Session) -> list[Case]:
    sets = [folder] if _numbered(folder, "input") or _numbered(folder, "output") else []
    sets = sets or sorted(folder.glob("test_data_set_*"), key=lambda path: (len(path.name), path.name))
    if not sets:
        raise InputError(
            f"{folder} holds no ONNX test data",
            where=Where(file=str(folder)),
            remedy="give a folder with input_0.pb, output_0.pb, ..., or one with test_data_set_0, ...",
        )
    return [_data_set(path, session) for path in sets]


def _data_set(folder: Path, session: Session) -> Case:
    inputs = _read_numbered(folder, "input", session.inputs)
    sources = {name: f"{folder.name}/{file}" for name, (_, file) in inputs.items()}
    expected = _read_numbered(folder, "output", session.outputs)
    return Case(
        folder.name,
        {name: value for name, (value, _) in inputs.items() if value is not None},
        sources,
        {name: value for name, (value, _) in expected.items()},
    )


def _read_numbered(folder: Path, kind: str, infos: Sequence[ValueInfo]) -> dict[str, tuple[Any, str]]:
    """Values and file names; a file belongs to the value that it names, else to that of its number."""
    names = {info.name for info in infos}
    found = {}
    for number, path in _numbered(folder, kind):
        if number >= len(infos):
            raise InputError(
                f"{path.name} has no counterpart: the model has {len(infos)} {kind}s",
                where=Where(file=str(path)),
                remedy=f"its {kind}s are: {_listed(infos)}",
            )
        stored, value = read_proto(path, infos[number])
        found[stored if stored in names else infos[number].name] = (value, path.name)
    return found


def _numbered(folder: Path, kind: str) -> list[tuple[int, Path]]:
    """``input_0.pb``, ``input_1.pb``, ... with their numbers."""
    matches = ((re.fullmatch(rf"{kind}_(\d+)\.pb", path.name), path) for path in folder.glob(f"{kind}_*.pb"))
    return sorted((int(match[1]), path) for match, path in matches if match)
