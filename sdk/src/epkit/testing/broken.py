"""A zoo of plugins, each with one fault.

Everything that a plugin does wrong must end in an error of epkit's own that names it, and must not touch
any other plugin. ``ZOO`` holds providers, with the stage and the error in which their fault must show;
``HOSTILE`` holds plugins of hooks, which a load must survive.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np

from ..backend.claim import Claim, Refusal
from ..backend.device import Device, Devices
from ..backend.memory import Allocator, HostStream, Stream
from ..backend.program import MemoryStep, Program
from ..backend.provider import Provider
from ..backend.subgraph import Subgraph
from ..errors import (
    BrokenProviderError,
    CompileError,
    EpkitError,
    IncompatibleProviderError,
    RunError,
    UnavailableProviderError,
)
from .plugins import Body, plugin_of

Anything = Any
"""What a faulty member returns: its signature is not the contract's."""


@dataclass(frozen=True)
class Specimen:
    """A provider with one fault.

    Attributes:
        name: of the provider.
        fault: what is wrong with it.
        stage: where the fault must show: as in ``EpkitError.where.stage``.
        error: what must be raised; None where the fault must only leave a warning behind.
        body: what importing its module does.
    """

    name: str
    fault: str
    stage: str
    error: type[EpkitError] | None
    body: Body


ZOO: list[Specimen] = []
Found = TypeVar("Found", bound=type[Provider])


class Sound(Provider):
    """Runs Relu, and has no fault: what the others are derived from."""

    name = "sound"
    version = "1.0"

    def devices(self) -> Devices:
        return Devices((Device(f"{self.name}:0", "toy"),))

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        for node in graph.nodes:
            yield Claim((node,)) if node.op_type == "Relu" else Refusal(node, "no-kernel", "Relu only")

    def compile(self, subgraph: Subgraph) -> Program:
        return SoundProgram(subgraph)


class SoundProgram(Program):
    """Relu after Relu."""

    def __init__(self, subgraph: Subgraph) -> None:
        self.subgraph = subgraph

    def run(self, context: Any, inputs: Sequence[Any]) -> Anything:
        values = dict(zip(self.subgraph.inputs, inputs, strict=True))
        for node in self.subgraph.nodes:
            context.begin(node)
            source = node.inputs[0]
            assert source is not None
            values[node.outputs[0]] = np.maximum(values[source], 0)
            context.end(node)
        return [values[value] for value in self.subgraph.outputs]


def in_zoo(stage: str, error: type[EpkitError] | None) -> Callable[[Found], Found]:
    """Put a class into the zoo, named after itself; its docstring is its fault."""

    def add(found: Found) -> Found:
        found.name = re.sub(r"(?<!^)(?=[A-Z])", "_", found.__name__).lower()
        ZOO.append(Specimen(found.name, found.__doc__ or "", stage, error, lambda: plugin_of(found)))
        return found

    return add


def bad_module(
    name: str, fault: str, error: type[EpkitError] = BrokenProviderError
) -> Callable[[Body], Body]:
    """Put a module into the zoo that gives no usable class."""

    def add(body: Body) -> Body:
        ZOO.append(Specimen(name, fault, "import", error, body))
        return body

    return add


def broken(what: str = "on purpose") -> Exception:
    """What faulty members raise: of no type that epkit knows."""
    return RuntimeError(f"broken {what}")


# ---- import ----


@bad_module("raises_at_import", "its module raises")
def _raises_at_import() -> Any:
    raise ImportError("libacme.so.3: cannot open shared object file")


@bad_module("exits_at_import", "its module ends the process")
def _exits_at_import() -> Any:
    raise SystemExit(3)


@bad_module("has_no_hook", "its module has no epkit_providers")
def _has_no_hook() -> Any:
    return SimpleNamespace()


@bad_module("hook_raises", "its epkit_providers raises")
def _hook_raises() -> Any:
    def epkit_providers() -> Anything:
        raise broken()

    return SimpleNamespace(epkit_providers=epkit_providers)


@bad_module("hook_returns_none", "its epkit_providers returns None")
def _hook_returns_none() -> Any:
    return SimpleNamespace(epkit_providers=lambda: None)


@bad_module("provides_another_name", "its provider has another name than its entry point")
def _provides_another_name() -> Any:
    return plugin_of(Sound)


@bad_module("gives_an_instance", "its epkit_providers returns an instance")
def _gives_an_instance() -> Any:
    class GivesAnInstance(Sound):
        name = "gives_an_instance"

    return SimpleNamespace(epkit_providers=lambda: [GivesAnInstance()])


@bad_module("is_no_provider", "its class has the right members and the wrong base")
def _is_no_provider() -> Any:
    members = {"name": "is_no_provider", "version": "1", "contract": (1, 1)}
    return SimpleNamespace(epkit_providers=lambda: [type("IsNoProvider", (), members)])


@in_zoo("import", IncompatibleProviderError)
class FromTheFuture(Sound):
    """supports contracts that this epkit does not speak yet"""

    contract = (99, 100)


@in_zoo("import", IncompatibleProviderError)
class FromThePast(Sound):
    """supports contracts that this epkit does not speak any more"""

    contract = (0, 0)


@in_zoo("import", BrokenProviderError)
class StatesNoRange(Sound):
    """states its contract as a number"""

    contract = 1  # type: ignore[assignment]


# ---- starting ----


@in_zoo("devices", BrokenProviderError)
class MissesAMember(Sound):
    """has no compile"""

    compile = Provider.compile
    __abstractmethods__ = frozenset({"compile"})


@in_zoo("devices", BrokenProviderError)
class RaisesInInit(Sound):
    """raises in __init__"""

    def __init__(self, options: object = None) -> None:
        raise broken()


@in_zoo("claim", BrokenProviderError)
class HasOddOptions(Sound):
    """has options that are no dataclass"""

    Options = int


@in_zoo("devices", BrokenProviderError)
class RaisesInDevices(Sound):
    """raises in devices"""

    def devices(self) -> Devices:
        raise broken()


@in_zoo("devices", BrokenProviderError)
class ReturnsAListOfDevices(Sound):
    """returns a list from devices"""

    def devices(self) -> Anything:
        return [Device("toy:0", "toy")]


@in_zoo("devices", BrokenProviderError)
class FindsTextDevices(Sound):
    """returns devices that are text"""

    def devices(self) -> Devices:
        return Devices(("toy:0",))  # type: ignore[arg-type]


@in_zoo("devices", UnavailableProviderError)
class FindsNothingAndSaysNothing(Sound):
    """finds no device, and gives no reason"""

    def devices(self) -> Devices:
        return Devices()


@in_zoo("claim", BrokenProviderError)
class RaisesInAllocator(Sound):
    """raises in allocator"""

    def allocator(self, device: Device) -> Allocator:
        raise broken()


@in_zoo("claim", BrokenProviderError)
class RaisesInAddOperators(Sound):
    """raises in add_operators"""

    def add_operators(self, operators: object) -> None:
        raise broken()


# ---- claim ----


@in_zoo("claim", BrokenProviderError)
class RaisesInClaim(Sound):
    """raises in claim"""

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        raise broken()


@in_zoo("claim", BrokenProviderError)
class RaisesHalfway(Sound):
    """raises after its first claim"""

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        yield Claim(graph.nodes[:1])
        raise broken()


@in_zoo("claim", BrokenProviderError)
class ClaimsNone(Sound):
    """returns None from claim"""

    def claim(self, graph: Subgraph) -> Anything:
        return None


@in_zoo("claim", BrokenProviderError)
class ClaimsByName(Sound):
    """claims names instead of nodes"""

    def claim(self, graph: Subgraph) -> Anything:
        return [node.name for node in graph.nodes]


@in_zoo("claim", BrokenProviderError)
class ClaimsNothingAtAll(Sound):
    """makes a claim of no nodes"""

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        yield Claim(())


@in_zoo("claim", BrokenProviderError)
class ClaimsStrangers(Sound):
    """claims nodes that it was not shown"""

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        copy = graph.nodes[0].graph.clone()  # type: ignore[union-attr]
        yield Claim((copy.node(0),))


@in_zoo("claim", BrokenProviderError)
class InventsACode(Sound):
    """refuses with a code that does not exist"""

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        yield Refusal(graph.nodes[0], "because", "no")


@in_zoo("plan", BrokenProviderError)
class RaisesInMemorySteps(Sound):
    """raises in memory_steps"""

    def memory_steps(self, subgraph: Subgraph) -> Sequence[MemoryStep]:
        raise broken()


# ---- compile ----


@in_zoo("compile", CompileError)
class RaisesInCompile(Sound):
    """raises in compile"""

    def compile(self, subgraph: Subgraph) -> Program:
        raise broken()


@in_zoo("compile", CompileError)
class CompilesToNone(Sound):
    """returns None from compile"""

    def compile(self, subgraph: Subgraph) -> Anything:
        return None


@in_zoo("compile", CompileError)
class CompilesToAFunction(Sound):
    """returns a function from compile"""

    def compile(self, subgraph: Subgraph) -> Anything:
        return SoundProgram(subgraph).run


# ---- run ----


class _Runs(Sound):
    """Compiles to a program whose ``run`` is the class's ``run``."""

    def compile(self, subgraph: Subgraph) -> Program:
        provider = self

        class Faulty(SoundProgram):
            def run(self, context: Any, inputs: Sequence[Any]) -> Anything:
                context.begin(subgraph.nodes[0])
                return provider.run(super().run(context, inputs))

            def close(self) -> None:
                provider.close_program()

        return Faulty(subgraph)

    def run(self, results: list[Any]) -> Anything:
        return results

    def close_program(self) -> None:
        return None


@in_zoo("run", RunError)
class RaisesInRun(_Runs):
    """raises in run"""

    def compile(self, subgraph: Subgraph) -> Program:
        class Raising(SoundProgram):
            def run(self, context: Any, inputs: Sequence[Any]) -> Anything:
                context.begin(subgraph.nodes[0])
                raise broken()

        return Raising(subgraph)


@in_zoo("run", BrokenProviderError)
class ReturnsTooFew(_Runs):
    """returns too few outputs"""

    def run(self, results: list[Any]) -> Anything:
        return results[:-1]


@in_zoo("run", BrokenProviderError)
class ReturnsTooMany(_Runs):
    """returns too many outputs"""

    def run(self, results: list[Any]) -> Anything:
        return [*results, *results]


@in_zoo("run", BrokenProviderError)
class ReturnsNone(_Runs):
    """returns None from run"""

    def run(self, results: list[Any]) -> Anything:
        return None


@in_zoo("run", BrokenProviderError)
class ReturnsAnArray(_Runs):
    """returns its only output instead of a list of it"""

    def run(self, results: list[Any]) -> Anything:
        return results[0]


class _OnItsOwnMemory(Sound):
    def devices(self) -> Devices:
        return Devices((Device(f"{self.name}:0", "toy", host_memory=False),))


@in_zoo("run", RunError)
class RaisesInStream(_OnItsOwnMemory):
    """raises in stream"""

    def stream(self, device: Device) -> Stream:
        raise broken()


@in_zoo("run", RunError)
class LosesItsDevice(_OnItsOwnMemory):
    """reports an error when it is waited for"""

    def stream(self, device: Device) -> Stream:
        class Lost(HostStream):
            def synchronize(self) -> None:
                raise broken("device")

        return Lost()


# ---- close ----


@in_zoo("close", None)
class RaisesInClose(Sound):
    """raises in close"""

    def close(self) -> None:
        raise broken()


@in_zoo("close", None)
class RaisesInProgramClose(_Runs):
    """raises when its program is closed"""

    def close_program(self) -> None:
        raise broken()


# ---- hooks ----


def _raise(*_: object) -> Any:
    raise broken()


HOSTILE: dict[str, Body] = {
    "raises at import": _raise,
    "exits at import": _exits_at_import,
    "operators raise": lambda: plugin_of(epkit_operators=lambda: _raise()),
    "operators are None": lambda: plugin_of(epkit_operators=lambda: None),
    "operators are numbers": lambda: plugin_of(epkit_operators=lambda: [1, 2]),
    "rewrites raise": lambda: plugin_of(epkit_rewrites=lambda: _raise()),
    "rewrites are None": lambda: plugin_of(epkit_rewrites=lambda: None),
    "rewrites are text": lambda: plugin_of(epkit_rewrites=lambda: ["fold_everything"]),
    "observer raises": lambda: plugin_of(epkit_notice=lambda notice: _raise()),
    "observer wants what there is not": lambda: plugin_of(epkit_notice=lambda weather: None),
}
"""Plugins of hooks, by what is wrong with them."""
