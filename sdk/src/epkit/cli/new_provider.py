"""``epkit new-provider``: writes a small, whole plugin package to start from.

Installed packages may add files, such as a workflow for a CI: an entry point of the group ``epkit.scaffold`` names a
function from :class:`Names` to texts by path. It is imported when the command runs; a broken one adds nothing.
"""

from __future__ import annotations

import importlib.metadata
import keyword
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Annotated

import typer

from ..aliases import ALIASES
from ..errors import EpkitError, OptionError
from . import _render
from ._options import Debug, Json

SCAFFOLD_GROUP = "epkit.scaffold"

RESERVED = ("error", "runtime", "host")
"""Words that already mean something where a provider's name may stand."""


@dataclass(frozen=True)
class Names:
    """A provider's name in its spellings: ``my_npu``, ``epkit-my-npu``, ``epkit_my_npu``, ``MyNpu``."""

    name: str
    distribution: str
    module: str
    title: str


def derive_names(given: str) -> Names:
    """The spellings that follow from what the user typed: ``my_npu``, ``my-npu`` or ``epkit-my-npu``.

    Raises:
        OptionError: if it cannot be a name.
    """
    name = re.sub(r"^epkit[-_]", "", given.strip().lower()).replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name) or name in RESERVED:
        raise OptionError(
            f"{given!r} cannot be a provider's name",
            remedy="use letters, digits and single hyphens, beginning with a letter, such as acme or my-npu",
        )
    title = "".join(part.capitalize() for part in name.split("_"))
    return Names(name, f"epkit-{name.replace('_', '-')}", f"epkit_{name}", title)


def package_files(names: Names) -> dict[str, str]:
    """The package's files: path within it -> text."""
    source = f"src/{names.module}"
    templates = {
        "pyproject.toml": "pyproject.toml.in",
        "README.md": "README.md.in",
        f"{source}/__init__.py": "init.py.in",
        f"{source}/provider.py": "provider.py.in",
        "tests/test_provider.py": "test_provider.py.in",
    }
    folder = files("epkit.cli") / "template"
    texts = {path: (folder / name).read_text(encoding="utf-8") for path, name in templates.items()}
    made = {path: Template(text).substitute(vars(names)) for path, text in texts.items()}
    return {**made, f"{source}/py.typed": ""}


def added_files(names: Names) -> dict[str, str]:
    """What installed packages add: path within the package -> text."""
    found: dict[str, str] = {}
    for entry in scaffolds():
        try:
            found |= entry.load()(names)
        except Exception as error:
            told = f"{entry.value} adds no files, because it is broken: {type(error).__name__}: {error}"
            _render.note(told)
    return found


def scaffolds() -> Iterable[importlib.metadata.EntryPoint]:
    """The installed functions that add files."""
    return importlib.metadata.entry_points(group=SCAFFOLD_GROUP)


def write_package(folder: Path, contents: dict[str, str]) -> None:
    """Write the files into a folder that must not exist yet.

    Raises:
        OptionError: if it exists, or cannot be made.
    """
    try:
        folder.mkdir(parents=True)
        for path, text in contents.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except FileExistsError:
        raise OptionError(
            f"{folder} exists already; nothing was written",
            remedy="choose another name, or another folder with --dir",
        ) from None
    except OSError as error:
        raise EpkitError(f"{folder} cannot be written: {error}", remedy="choose another --dir") from None


def new_provider(
    name: Annotated[str, typer.Argument(metavar="NAME", help="the provider's name, such as acme or my-npu")],
    folder: Annotated[Path, typer.Option("--dir", help="where to put the package's folder")] = Path("."),
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a small plugin package to start from: kernels, an option, tests."""
    names = derive_names(name)
    target = folder / names.distribution
    contents = {**added_files(names), **package_files(names)}
    if names.name in ALIASES.values():
        _render.note(f"{names.name!r} is the name of a well-known provider; two of one name hide each other")
    write_package(target, contents)
    if as_json:
        _render.emit({**vars(names), "folder": str(target), "files": sorted(contents)})
        return
    _render.verbatim(f"wrote {target}/")
    for path in sorted(contents):
        _render.verbatim(f"  {path}")
    _render.verbatim(f"\nnext: cd {target} && pip install -e . && python -m pytest")
