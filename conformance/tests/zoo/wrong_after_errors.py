"""Providers that take memory in one method and give it back in the next, and nowhere else: an error loses it."""

from __future__ import annotations

from typing import Any

from sound import Unusual, reported_by

from epkit.backend import Program, Subgraph


class _Holds(Unusual):
    """Takes a buffer in one method, gives it back in another."""

    takes = ""
    gives = ""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.held: list[Any] = []
        self.reach("__init__")

    def reach(self, method: str) -> None:
        """Come to a method."""
        allocator = self.allocator(self.devices().found[0])
        if method == self.takes:
            self.held.append(allocator.allocate(64))
        elif method == self.gives and self.held:
            allocator.free(self.held.pop())

    def claim(self, graph: Subgraph) -> Any:
        self.reach("claim")
        return super().claim(graph)

    def compile(self, subgraph: Subgraph) -> Program:
        self.reach("compile")
        return super().compile(subgraph)

    def save(self, program: Program) -> bytes | None:
        self.reach("save")
        return super().save(program)


@reported_by("errors/in_claim", may=["contract/*", "device/*", "capture/*", "artifacts/*"])
class LosesMemoryInClaim(_Holds):
    """gives back in claim what it took when it was made"""

    takes, gives = "__init__", "claim"


@reported_by("errors/in_compile", may=["contract/*", "device/*", "capture/*", "artifacts/*", "errors/*"])
class LosesMemoryInCompile(_Holds):
    """gives back in compile what it took in claim"""

    takes, gives = "claim", "compile"


@reported_by("errors/in_save", may=["contract/*", "device/*", "capture/*", "artifacts/*", "errors/*"])
class LosesMemoryInSave(_Holds):
    """gives back in save what it took in compile"""

    takes, gives = "compile", "save"
