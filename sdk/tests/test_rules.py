"""The rules of the design that a test can hold: each is named by its number."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx.inliner
import pytest

import epkit
import epkit.backend as ep
from epkit.partition.claims import Claims
from epkit.partition.placement import Placement
from epkit.pipeline import STAGES
from epkit.pipeline import stages as pipeline_stages
from epkit.settings import Settings
from epkit.testing.awkward import awkward, by_chance, every_other, groups_by_chance
from epkit.testing.broken import ZOO
from epkit.testing.models import model, random_feeds, random_model
from epkit.testing.oracle import assert_same, expected
from epkit.testing.plugins import entry_points_of, registry_of

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
    ("errors", "knobs", "dtypes", "trace", "late"),
    ("model",),
    ("kernels",),
    ("backend",),
    ("optimize", "partition", "memory"),
    ("settings", "binding", "planning", "compiling", "model_cache", "pipeline"),
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


# ---- rule 3: five members make a provider ----


def test_rule_3_five_members_are_a_whole_provider() -> None:
    class Five(ep.Provider):
        name = "five"
        version = "1.0"

        def devices(self) -> ep.Devices:
            return ep.Devices((ep.Device("five:0", "toy"),))

        def claim(self, graph: ep.Subgraph) -> list[ep.Claim]:
            return [ep.Claim((node,)) for node in graph.nodes if node.op_type == "Neg"]

        def compile(self, subgraph: ep.Subgraph) -> ep.Program:
            class Negate(ep.Program):
                def run(self, context: ep.RunContext, inputs: Sequence[Any]) -> list[Any]:
                    return [-inputs[0]]

            return Negate()

    assert ep.Provider.__abstractmethods__ == {"devices", "claim", "compile"}
    assert ep.Program.__abstractmethods__ == {"run"}
    graph = model("g (float[N] x) => (float[N] y) { a = Neg(x)  y = Abs(a) }")
    with epkit.load(graph, ["five"], registry=registry_of(Five)) as session:
        assert_same(session(x=np.ones(2, np.float32))["y"], np.ones(2, np.float32))
        assert session.placement.counts() == {"five": 1, "cpu": 1}


# ---- rule 4: every "no" has a reason ----


def through_all_stages(graph: onnx.ModelProto, *providers: type[ep.Provider]) -> dict[str, Any]:
    wanted = Settings(tuple(provider.name for provider in providers), "cpu", "none")
    return dict(pipeline_stages(graph, wanted, registry_of(*providers)))


@pytest.mark.parametrize("seed", range(6))
def test_rule_4_every_no_has_a_reason(seed: int) -> None:
    providers = (
        awkward("one", groups_by_chance(seed)),
        awkward("two", by_chance(seed)),
        awkward("odd", every_other(1)),
    )
    found = through_all_stages(random_model(random.Random(seed), 14, 2), *providers)
    claims: Claims = found["claim"]
    placement: Placement = found["plan"].placement
    claimed = {
        (str(node.name), bound.name)
        for offers in claims.offers.values()
        for bound, offer in zip(claims.bounds, offers, strict=True)
        for node in offer.claimed
    }
    for node in placement.nodes:
        reasons = {reason.provider: reason for reason in node.refused}
        for rank, name in enumerate(placement.providers):
            before = node.provider not in placement.providers[: rank + 1]
            if (node.node, name) not in claimed or before:
                assert name in reasons, f"{node.node} on {node.provider}: {name} gives no reason"
                assert reasons[name].code in ep.REFUSAL_CODES
                assert reasons[name].reason.strip()


# ---- rule 6: one broken plugin never breaks another, nor `import epkit` ----


def test_rule_6_nobody_suffers_from_the_whole_zoo() -> None:
    registry = registry_of(entry_points=entry_points_of({specimen.name: specimen.body for specimen in ZOO}))
    states = {state.name: state for state in registry.states()}
    assert {specimen.name for specimen in ZOO} <= states.keys()
    for state in states.values():
        assert state.state in ("ready", "absent", "incompatible", "broken")
        assert state.state in ("ready", "absent") or (state.reason and state.remedy), state
    with epkit.load(random_model(random.Random(1)), ["null"], registry=registry) as session:
        assert_same(
            session.run(None, random_feeds()), expected(random_model(random.Random(1)), random_feeds())
        )


HEAVY = ("numpy", "onnx", "onnx_ir", "ml_dtypes", "pluggy", "typer", "rich")


def test_rule_6_importing_epkit_imports_no_plugin_and_nothing_heavy() -> None:
    code = f"""
import sys
before = set(sys.modules)
import epkit
dir(epkit), epkit.__version__, epkit.EpkitError
new = set(sys.modules) - before
print(sorted(name for name in new if name.partition(".")[0] in {HEAVY!r} or name.startswith("epkit_")))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


# ---- rule 8: stages are plain values ----


def test_rule_8_stages_are_plain_values() -> None:
    found = through_all_stages(random_model(random.Random(3), 10, 2), awkward("one", by_chance(3)))
    assert tuple(found) == STAGES
    for name, value in found.items():
        assert dataclasses.is_dataclass(value), name
        assert type(value).__dataclass_params__.frozen, name  # type: ignore[attr-defined]
        assert "__str__" in vars(type(value)), f"the value of {name} has no text of its own"
        text = str(value)
        assert text and not re.search(r" at 0x[0-9a-f]+|<[\w.]+ object", text), f"{name}:\n{text}"
    for name in ("optimise", "claim", "partition", "plan"):
        assert "tanh" in str(found[name]), f"{name} does not name the nodes"


# ---- rule 9: fused operators carry their own meaning ----

PLAIN = """
    g (float[N, 3] x) => (float[N, 3] y) { [before] a = Abs(x)  [call] b = DOMAIN.Fused <gain = 3.0> (a, x)  [after] y = Neg(b) }
    <domain: "DOMAIN", opset_import: ["": 18]> Fused <gain: float = 2.0> (p, q) => (r) {
        [sum] s = Add(p, q)  [tanh] t = Tanh(s)  [gain] k = Constant <value_float: float = @gain> ()  [scale] r = Mul(t, k)
    }"""
IN_A_LOOP = """
    g (float[N, 3] x) => (float[N, 3] y) <int64 n = {2}, bool yes = {1}> {
        y = Loop(n, yes, x) <body = step (int64 i, bool go, float[N, 3] s) => (bool on, float[N, 3] t) {
            on = Identity(go)  [call] t = DOMAIN.Fused <gain = 2.0> (s, x) }>
    }
    <domain: "DOMAIN", opset_import: ["": 18]> Fused <gain: float = 2.0> (p, q) => (r) {
        [sum] s = Add(p, q)  [tanh] t = Tanh(s)  [gain] k = Constant <value_float: float = @gain> ()  [scale] r = Mul(t, k)
    }"""
NESTED = """
    g (float[N, 3] x) => (float[N, 3] y) { [call] y = DOMAIN.Fused <gain = 3.0> (x, x) }
    <domain: "DOMAIN", opset_import: ["": 18, "DOMAIN": 1]> Fused <gain: float = 2.0> (p, q) => (r) {
        [inner] t = DOMAIN.Inner(p, q)  [gain] k = Constant <value_float: float = @gain> ()  [scale] r = Mul(t, k)
    }
    <domain: "DOMAIN", opset_import: ["": 18]> Inner (p, q) => (r) { [sum] s = Add(p, q)  [tanh] r = Tanh(s) }"""

DOMAINS = ("local", "com.microsoft")
X = np.array([[-1, 0.5, 2]], np.float32)


def fused_model(text: str, domain: str) -> onnx.ModelProto:
    return model(text.replace("DOMAIN", domain), domains={domain: 1})


def knows(name: str, *operators: str, domain: str) -> type[ep.KernelProvider]:
    """A provider with kernels for Fused, Tanh or Add, and for nothing else."""
    kernels = {
        "Fused": ep.kernel("Fused", domain=domain)(
            lambda p, q, *, gain=2.0: np.tanh(p + q) * np.float32(gain)
        ),
        "Inner": ep.kernel("Inner", domain=domain)(lambda p, q: np.tanh(p + q)),
        "Tanh": ep.kernel("Tanh")(np.tanh),
        "Add": ep.kernel("Add")(np.add),
    }

    class Knowing(ep.KernelProvider):
        version = "1.0"

        def devices(self) -> ep.Devices:
            return ep.Devices((ep.Device(f"{name}:0", "toy"),))

    Knowing.name = name
    Knowing.kernels = tuple(kernels[operator] for operator in operators)
    return Knowing


def run_fused(graph: onnx.ModelProto, *providers: type[ep.Provider], level: str = "none") -> dict[str, str]:
    """Check the values; give who ran each operator."""
    names = [provider.name for provider in providers]
    with epkit.load(graph, names, registry=registry_of(*providers), optimise=level) as session:
        assert_same(session(x=X), expected(onnx.inliner.inline_local_functions(graph), {"x": X}))
        return {node.operator: node.provider for node in session.placement.nodes}


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("text", [PLAIN, IN_A_LOOP, NESTED])
def test_rule_9_who_knows_the_operator_takes_it_whole(text: str, domain: str) -> None:
    found = run_fused(fused_model(text, domain), knows("toy", "Fused", domain=domain))
    assert found[f"{domain}.Fused"] == "toy"
    assert "Tanh" not in found


@pytest.mark.parametrize("level", ["none", "all"])
@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("text", [PLAIN, IN_A_LOOP, NESTED])
def test_rule_9_for_any_other_the_body_is_inlined(text: str, domain: str, level: str) -> None:
    found = run_fused(fused_model(text, domain), level=level)
    assert found["Tanh"] == found["Mul"] == "cpu"
    assert not any(operator.endswith((".Fused", ".Inner")) for operator in found)


@pytest.mark.parametrize("domain", DOMAINS)
@pytest.mark.parametrize("text", [PLAIN, IN_A_LOOP, NESTED])
def test_rule_9_who_knows_only_an_inner_operator_gets_that(text: str, domain: str) -> None:
    found = run_fused(fused_model(text, domain), knows("toy", "Tanh", domain=domain))
    assert (found["Tanh"], found["Add"], found["Mul"]) == ("toy", "cpu", "cpu")


@pytest.mark.parametrize("known", [(), ("Tanh",), ("Fused",)])
def test_rule_9_defaults_of_a_function_hold_either_way(known: tuple[str, ...]) -> None:
    graph = fused_model(PLAIN.replace("<gain = 3.0>", ""), "local")
    with epkit.load(graph, ["toy"], registry=registry_of(knows("toy", *known, domain="local"))) as session:
        assert_same(session(x=X)["y"], -2 * np.tanh(np.abs(X) + X))


@pytest.mark.parametrize("domain", DOMAINS)
def test_rule_9_a_preferred_part_goes_before_a_later_whole(domain: str) -> None:
    graph = fused_model(PLAIN, domain)
    part, whole = knows("part", "Tanh", domain=domain), knows("whole", "Fused", "Add", domain=domain)
    found = run_fused(graph, part, whole)
    assert (found["Tanh"], found["Add"], found["Mul"]) == ("part", "whole", "cpu")
    assert run_fused(graph, whole, part)[f"{domain}.Fused"] == "whole"
    nothing = knows("nothing", domain=domain)
    assert run_fused(graph, nothing, whole)[f"{domain}.Fused"] == "whole"


@pytest.mark.parametrize("domain", DOMAINS)
def test_rule_9_of_a_function_in_a_function_either_may_be_known(domain: str) -> None:
    found = run_fused(fused_model(NESTED, domain), knows("toy", "Inner", domain=domain))
    assert (found[f"{domain}.Inner"], found["Mul"]) == ("toy", "cpu")


def test_rule_9_operators_that_the_standard_defines_by_others_are_inlined_too() -> None:
    class OnlyParts(awkward("parts", by_chance(0, 1.0))):  # type: ignore[misc]
        def claim(self, view: ep.Subgraph) -> Iterator[ep.Claim | ep.Refusal]:
            whole = {"MeanVarianceNormalization"}
            for node in view.nodes:
                if node.op_type in whole:
                    yield ep.Refusal(node, "no-kernel", "not as a whole")
                else:
                    yield ep.Claim((node,))

    graph = model("g (float[1, 2, 3, 4] x) => (float[1, 2, 3, 4] y) { y = MeanVarianceNormalization(x) }")
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 2, 3, 4)).astype(np.float32)}
    registry = registry_of(OnlyParts)
    with epkit.load(graph, ["parts"], fallback="error", registry=registry, optimise="none") as session:
        assert_same(session.run(None, feeds), expected(graph, feeds))
        assert set(session.placement.counts()) == {"parts"}
        assert len(session.placement.nodes) > 3


# ---- the two doors ----

APPLICATION = [
    "Cancellation",
    "EpkitError",
    "InferenceSession",
    "Limits",
    "Profile",
    "ProviderState",
    "RunOptions",
    "Session",
    "SessionOptions",
    "load",
    "operator",
    "providers",
    "register",
]
PLUGIN = [
    "ALL",
    "BOOL",
    "CONTRACT_VERSION",
    "FLOATS",
    "INTS",
    "NUMBERS",
    "REFUSAL_CODES",
    "SIGNED",
    "STRINGS",
    "UNSIGNED",
    "Allocator",
    "Claim",
    "CustomOperator",
    "Device",
    "Devices",
    "Event",
    "HostAllocator",
    "HostStream",
    "Kernel",
    "KernelProvider",
    "KernelTable",
    "MemoryStep",
    "Notice",
    "Program",
    "ProgramMemory",
    "Provider",
    "Refusal",
    "RunContext",
    "Stream",
    "Subgraph",
    "Tensor",
    "custom_kernels",
    "element_type",
    "hookimpl",
    "kernel",
    "portable_kernels",
    "static_shape",
]


@pytest.mark.parametrize(("door", "names"), [("epkit", APPLICATION), ("epkit.backend", PLUGIN)])
def test_the_doors_have_exactly_these_names(door: str, names: list[str]) -> None:
    module = importlib.import_module(door)
    assert sorted(module.__all__) == sorted(names)
    for name in names:
        assert getattr(module, name) is not None
    public = {name for name, value in vars(module).items() if not name.startswith("_")}
    beside = {name for name in public - set(names) if not isinstance(getattr(module, name), ModuleType)}
    assert beside <= {"annotations", "TYPE_CHECKING", "Any"}


def test_what_the_door_does_not_have_is_said() -> None:
    with pytest.raises(AttributeError, match="module 'epkit' has no attribute 'run'; it has Cancellation"):
        epkit.run  # noqa: B018
    assert set(APPLICATION) <= set(dir(epkit))


def test_the_smallest_provider_is_small() -> None:
    text = (SOURCE / "backend" / "null.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert {line for line in text.splitlines() if "import epkit" in line or "from epkit" in line} == {
        "import epkit.backend as ep"
    }
