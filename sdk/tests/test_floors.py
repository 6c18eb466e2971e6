"""Rules 1 and 2 of the design: the core names no backend, and imports only go down."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import epkit

SOURCE = Path(epkit.__file__).parent
ROOT = Path(__file__).parents[2]
BESIDE = sorted(ROOT.glob("[ce]*/**/src/epkit_*/__init__.py"))
PACKAGES = (
    SOURCE,
    *(each.parent for each in (*sorted(ROOT.glob("plugins/*/src/epkit_*/__init__.py")), *BESIDE)),
)
"""epkit, and the packages beside it: plugins, the conformance suite, the example."""

# ---- rule 1: the core names no backend ----

NAMES = [
    "cuda",
    "cudnn",
    "cublas",
    "cupti",
    "nvidia",
    "tensorrt",
    "nvtx",
    "rocm",
    "hip",
    "migraphx",
    "amd",
    "opencl",
    "pocl",
    "sycl",
    "vulkan",
    "metal",
    "coreml",
    "apple",
    "directml",
    "dml",
    "openvino",
    "intel",
    "onednn",
    "mkl",
    "npu_sim",
    "qnn",
    "qualcomm",
    "hexagon",
    "xnnpack",
    "arm",
    "acl",
    "nnapi",
    "webgpu",
    "webnn",
    "tvm",
    "rknpu",
    "rockchip",
    "cann",
    "ascend",
    "huawei",
    "vitis",
    "xilinx",
    "azure",
    "iree",
]
"""Backends and vendors. Kinds of hardware (cpu, gpu, npu) are no backends."""


def test_rule_1_the_core_names_no_backend() -> None:
    word = re.compile(rf"(?<![\w])({'|'.join(NAMES)})(?![\w])", re.IGNORECASE)
    texts = [
        p for p in SOURCE.rglob("*") if p.is_file() and p.suffix != ".pyc" and p != SOURCE / "aliases.py"
    ]
    assert len(texts) > 100
    found = [
        f"{path.relative_to(SOURCE)}:{number}: {line.strip()}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if word.search(line)
    ]
    assert not found, "\n".join(found)


# ---- rule 2: imports only go down ----

FLOORS = (
    ("errors", "knobs", "dtypes", "trace", "late", "collector"),
    ("model",),
    ("kernels",),
    ("backend",),
    ("optimize", "partition", "memory"),
    ("settings", "binding", "planning", "compiling", "known", "model_cache", "pipeline"),
    ("runtime",),
    ("aliases", "discovery", "api", "__init__", "compat", "testing", "diagnose"),
    ("cli",),
)
"""From the ground up. On one floor, folders may import the files beside them, and not each other."""

FLOOR = {unit: number for number, units in enumerate(FLOORS) for unit in units}


@dataclass(frozen=True)
class Import:
    """One import within a package; modules as dotted names without the package's."""

    line: str
    importer: str
    imported: str
    typing_only: bool

    @property
    def units(self) -> tuple[str, str]:
        """The files or folders of the house on both sides."""
        return self.importer.partition(".")[0], self.imported.partition(".")[0]


@cache
def imports(source: Path = SOURCE) -> tuple[Import, ...]:
    """What the modules of a package import of each other."""
    return tuple(found for path in sorted(source.rglob("*.py")) for found in imports_of(path, source))


def imports_of(path: Path, source: Path) -> Iterator[Import]:
    importer = name_of(path, source)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    package = [source.name, *path.relative_to(source).parts[:-1]]
    for node in ast.walk(tree):
        for target in targets(node, package):
            where = f"{path.relative_to(source)}:{getattr(node, 'lineno', 0)}: {ast.unparse(node)}"
            yield Import(where, importer, module_named(target, source), id(node) in guarded)


def targets(node: ast.AST, package: Sequence[str]) -> Iterator[list[str]]:
    if isinstance(node, ast.Import):
        found = [alias.name.split(".") for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = list(package[: len(package) - node.level + 1]) if node.level else []
        base += node.module.split(".") if node.module else []
        found = [[*base, alias.name] for alias in node.names]
    else:
        return
    yield from (target for target in found if target[0] == package[0])


def module_named(target: Sequence[str], source: Path) -> str:
    """The module that a dotted name belongs to: the name itself, or what it is a member of."""
    for length in range(len(target), 0, -1):
        path = source.joinpath(*target[1:length])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return name_of(file, source)
    raise AssertionError(f"there is no module {'.'.join(target)}")


def name_of(path: Path, source: Path) -> str:
    parts = path.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def is_folder(unit: str) -> bool:
    return (SOURCE / unit).is_dir()


def test_rule_2_everything_has_a_floor() -> None:
    units = {path.relative_to(SOURCE).with_suffix("").parts[0] for path in SOURCE.rglob("*.py")}
    assert units == set(FLOOR)


def test_rule_2_imports_only_go_down() -> None:
    assert len(imports()) > 300
    wrong = []
    for found in imports():
        above, below = found.units
        beside = FLOOR[above] == FLOOR[below] and above != below
        allowed = not is_folder(below) or found.typing_only and above == "__init__"
        if FLOOR[above] < FLOOR[below] or beside and not allowed:
            wrong.append(found.line)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("source", PACKAGES, ids=lambda path: path.name)
def test_rule_2_no_cycle_is_hidden_in_a_function(source: Path) -> None:
    """Imports inside of functions count; those for type checkers alone do not."""
    graph: dict[str, set[str]] = {}
    for found in imports(source):
        if not found.typing_only and found.importer != found.imported:
            graph.setdefault(found.importer, set()).add(found.imported)
    TopologicalSorter(graph).prepare()  # raises CycleError, naming the cycle


def test_rule_2_a_cycle_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(f"from {tmp_path.name} import b\n")
    (tmp_path / "b.py").write_text("def late():\n    from .a import c\n")
    (tmp_path / "__init__.py").touch()
    with pytest.raises(CycleError):
        test_rule_2_no_cycle_is_hidden_in_a_function(tmp_path)


def test_rule_2_all_packages_are_looked_at() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    assert {*(path.name for path in PACKAGES), "benchmarks"} == set(settings["packages"])
