"""Providers that are right alone: faults of fused groups, of bodies, of whole graphs, and beside other providers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from sound import Sound, SoundDevice, reported_by

from epkit.backend import Claim, Program, Refusal, RunContext, Subgraph, kernel
from epkit.backend.kernel_provider import KernelProgram
from epkit.testing.memory import DeviceBuffer, FakeMemory

# ---- fused groups ----


class _Mistaken(KernelProgram):
    """Has another answer than its nodes where ``applies`` says so."""

    def __init__(self, subgraph: Subgraph, *rest: Any, answer: Callable[[Any], Any]) -> None:
        super().__init__(subgraph, *rest)
        self.answer = answer

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        return [self.answer(array) for array in super().run(context, inputs)]


def _operators(subgraph: Subgraph) -> list[str]:
    return [node.op_type for node in subgraph.nodes]


class _WithAnswer(Sound):
    """Gives a wrong answer for some programs."""

    def answer(self, subgraph: Subgraph) -> Callable[[Any], Any] | None:
        """What becomes of each result; None where all is well."""
        raise NotImplementedError

    def compile(self, subgraph: Subgraph) -> Program:
        parts = (subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)
        answer = self.answer(subgraph)
        return _Mistaken(*parts, answer=answer) if answer else KernelProgram(*parts)


@reported_by("patterns/matmul_add_relu/3_rows", "patterns/matmul_add_relu/1_rows", may=["models/*"])
class FusesTheBiasAway(_WithAnswer):
    """runs MatMul, Add and Relu as one kernel, which adds no bias but after it"""

    def answer(self, subgraph: Subgraph) -> Callable[[Any], Any] | None:
        fused = _operators(subgraph) == ["MatMul", "Add", "Relu"]
        return (lambda y: y + y.dtype.type(0.25)) if fused else None


@reported_by(
    "graphs/long_chain/3_rows", "graphs/long_chain/1_rows", may=["graphs/two_diamonds/*", "partitions/*"]
)
class RunsOutOfRegisters(_WithAnswer):
    """has room for eight nodes in a program, and forgets the others"""

    def answer(self, subgraph: Subgraph) -> Callable[[Any], Any] | None:
        return (lambda y: y * y.dtype.type(2)) if len(subgraph.nodes) > 8 else None


class _InPlace(KernelProgram):
    """Computes Mul and Add of two values over the first, although somebody may need it."""

    def __init__(self, subgraph: Subgraph, *rest: Any) -> None:
        super().__init__(subgraph, *rest)
        self.shared = len(subgraph.nodes) > 2 and any(
            sum(value in other.inputs for other in subgraph.nodes) > 2
            for node in subgraph.nodes
            for value in node.outputs
        )

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        results = super().run(context, inputs)
        return [array + 1 for array in results] if self.shared else results


@reported_by("graphs/diamond/3_rows", "graphs/diamond/1_rows", may=["partitions/*"])
class OverwritesWhatThreeNodesRead(Sound):
    """gives the place of a value away after its second reader"""

    def compile(self, subgraph: Subgraph) -> Program:
        return _InPlace(subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)


# ---- bodies ----


class _FirstRound(KernelProgram):
    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        kept = self.__dict__.setdefault("kept", [np.array(x) for x in inputs])
        alike = [k.shape for k in kept] == [x.shape for x in inputs]
        return super().run(context, kept if alike else inputs)


@reported_by(
    "graphs/inside_loop/3_rows",
    "graphs/inside_loop/1_rows",
    "graphs/inside_scan/3_rows",
    may=["graphs/if_inside_loop/*", "graphs/inside_if/*", "graphs/if_inside_if/*", "partitions/*", "pairs/*"],
)
class RepeatsTheFirstRound(Sound):
    """takes the inputs of a body's first round for those of all rounds"""

    def compile(self, subgraph: Subgraph) -> Program:
        if subgraph.depth == 0:
            return super().compile(subgraph)
        return _FirstRound(subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)


# ---- parts of graphs ----


class _Backwards(KernelProgram):
    """Returns many outputs from the last to the first."""

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        results = super().run(context, inputs)
        return results if len(results) < 3 else list(results)[::-1]


@reported_by(
    "graphs/many_outputs/3_rows", "graphs/many_outputs/1_rows", may=["graphs/*", "partitions/*", "pairs/*"]
)
class OrdersOutputsItsOwnWay(Sound):
    """returns more than two outputs in an order of its own, and not in that of the partition"""

    def compile(self, subgraph: Subgraph) -> Program:
        return _Backwards(subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)


@reported_by(
    "partitions/random/1", may=["partitions/*", "pairs/*", "graphs/*", "contract/explains_every_refusal"]
)
class WantsAllThatItClaimed(Sound):
    """compiles what it claimed, or nothing: a part of it is an error"""

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        answers = list(super().claim(graph))
        CLAIMED[graph.digest()] = sum(isinstance(answer, Claim) for answer in answers)
        LARGEST[0] = max(CLAIMED.values())
        return answers

    def compile(self, subgraph: Subgraph) -> Program:
        if 1 < len(subgraph.nodes) < min(5, LARGEST[0]) and LARGEST[0] > 10:
            raise RuntimeError(f"acme error 3: {len(subgraph.nodes)} of {LARGEST[0]} nodes")
        return super().compile(subgraph)


CLAIMED: dict[str, int] = {}
LARGEST = [0]


# ---- beside others ----


class _Ring(KernelProgram):
    """Its results lie in memory that the next program of any session takes."""

    ring: ClassVar[dict[Any, Any]] = {}

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        results = []
        for index, array in enumerate(super().run(context, inputs)):
            ring = self.ring.setdefault((threading.get_ident(), index, array.shape, array.dtype), [])
            if len(ring) < 3:
                ring.append(np.empty_like(array))
            place = ring.pop(0)
            ring.append(place)
            place[...] = array
            results.append(place)
        return results


@reported_by(
    "pairs/before_late_device",
    "pairs/after_late_device",
    may=["pairs/*", "contract/*", "threads/*", "graphs/*", "partitions/*", "models/*", "errors/*"],
)
class TakesHandedMemoryBack(Sound):
    """reuses the memory of a result three programs later, though the next provider may not have read it"""

    def compile(self, subgraph: Subgraph) -> Program:
        return _Ring(subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)


GLOBAL: list[Any] = [None]


class _Guarded(KernelProgram):
    """One run of a program at a time; all programs share a scratch buffer."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.lock = threading.Lock()

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        with self.lock:
            GLOBAL[0] = list(inputs)
            time.sleep(0.002)
            return super().run(context, GLOBAL[0])


@reported_by("threads/many_sessions_many_threads")
class RacesAcrossSessions(Sound):
    """locks each session, and has one scratch buffer for all of them"""

    def compile(self, subgraph: Subgraph) -> Program:
        return _Guarded(subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)


# ---- memory that is not one's own any more ----


@kernel("Tanh", since=6, types={"T": {"float32"}}, shapes=lambda x: [(x.shape, x.dtype)])
def _tanh(x: Any, *, out: Sequence[Any]) -> None:
    np.tanh(x, out=out[0])


class _LooksBack(KernelProgram):
    """Adds nothing, but looks for it in the results of the run before."""

    before: Any = None

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        (result,) = super().run(context, inputs)
        before, self.before = self.before, result
        if before is not None and before.shape == result.shape:
            np.add(result, before * np.float32(0), out=result)
        return [result]


@reported_by("contract/forgets_its_memory", may=["contract/writes_all_of_its_outputs"])
class LooksAtOldMemory(Sound):
    """reads the memory that the core gave it for the run before"""

    kernels = (_tanh,)

    def compile(self, subgraph: Subgraph) -> Program:
        if _operators(subgraph) != ["Tanh"]:
            return super().compile(subgraph)
        return _LooksBack(subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)


class _FreesAnother(FakeMemory):
    """Finds buffers by a handle that is one too high."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[DeviceBuffer] = []
        self.spare: dict[int, list[DeviceBuffer]] = {}

    def allocate(self, nbytes: int) -> DeviceBuffer:
        spare = self.spare.setdefault(nbytes, [])
        buffer = spare.pop() if spare else super().allocate(nbytes)
        self.given.append(buffer)
        return buffer

    def free(self, buffer: Any) -> None:
        index = next((i for i, one in enumerate(self.given) if one is buffer), 0)
        del self.given[index]
        wrong = self.given[index] if index < len(self.given) else buffer
        self.spare.setdefault(len(wrong.data), []).append(wrong)


@reported_by("device/survives_a_use_after_free", may=["*"])
class FreesAnotherBuffer(SoundDevice):
    """frees the buffer that was given out after the one that it is asked to free"""

    memory = _FreesAnother()
