"""Rules 1 and 2 of the design: the core names no backend, and imports only go down."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import epkit

SOURCE = Path(epkit.__file__).parent

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
    """One import within epkit; modules as dotted names without ``epkit``."""

    line: str
    importer: str
    imported: str
    typing_only: bool

    @property
    def units(self) -> tuple[str, str]:
        """The files or folders of the house on both sides."""
        return self.importer.partition(".")[0], self.imported.partition(".")[0]


@cache
def imports() -> tuple[Import, ...]:
    return tuple(found for path in sorted(SOURCE.rglob("*.py")) for found in imports_of(path))


def imports_of(path: Path) -> Iterator[Import]:
    importer = name_of(path)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    package = ["epkit", *path.relative_to(SOURCE).parts[:-1]]
    for node in ast.walk(tree):
        for target in targets(node, package):
            where = f"{path.relative_to(SOURCE)}:{getattr(node, 'lineno', 0)}: {ast.unparse(node)}"
            yield Import(where, importer, module_named(target), id(node) in guarded)


def targets(node: ast.AST, package: Sequence[str]) -> Iterator[list[str]]:
    if isinstance(node, ast.Import):
        found = [alias.name.split(".") for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = list(package[: len(package) - node.level + 1]) if node.level else []
        base += node.module.split(".") if node.module else []
        found = [[*base, alias.name] for alias in node.names]
    else:
        return
    yield from (target for target in found if target[0] == "epkit")


def module_named(target: Sequence[str]) -> str:
    """The module that a dotted name belongs to: the name itself, or what it is a member of."""
    for length in range(len(target), 0, -1):
        path = SOURCE.joinpath(*target[1:length])
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return name_of(file)
    raise AssertionError(f"there is no module {'.'.join(target)}")


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
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


def test_rule_2_no_cycle_is_hidden_in_a_function() -> None:
    """Imports inside of functions count; those for type checkers alone do not."""
    graph: dict[str, set[str]] = {}
    for found in imports():
        if not found.typing_only and found.importer != found.imported:
            graph.setdefault(found.importer, set()).add(found.imported)
    TopologicalSorter(graph).prepare()  # raises CycleError, naming the cycle
