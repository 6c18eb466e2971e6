"""Providers whose results are right, and who break the contract."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sound import Capturing, Replay, Sound, Unusual, reported_by, with_kernel

import epkit
from epkit.backend import Claim, Device, Devices, Program, Refusal, RunContext, Subgraph, kernel
from epkit.backend.kernel_provider import KernelProgram

# ---- memory of others ----


def _in_place(x: Any) -> Any:
    np.abs(x, out=x)
    return x.copy()


@reported_by("contract/leaves_inputs_alone", may=["graphs/*", "pairs/*", "partitions/*"])
class WritesItsInput(with_kernel("Abs", _in_place, types={"T": {"float32"}})):
    """computes in place"""


@kernel("Abs", since=6, types={"T": {"float32"}}, shapes=lambda x: [(x.shape, x.dtype)])
def _most_of_it(x: Any, *, out: Sequence[Any]) -> None:
    np.abs(x[:16], out=out[0][:16])


@reported_by("contract/writes_all_of_its_outputs", may=["contract/follows_changing_shapes", "threads/*"])
class LeavesARest(Sound):
    """writes the first sixteen rows"""

    kernels = (_most_of_it,)


@kernel("Tanh", since=6, types={"T": {"float32"}}, shapes=lambda x: [(x.shape, x.dtype)])
def _one_more(x: Any, *, out: Sequence[Any]) -> None:
    np.tanh(x, out=out[0])
    ctypes.memset(out[0].ctypes.data + out[0].nbytes, 0, 4)


@reported_by("contract/keeps_inside_its_memory")
class WritesBehindItsOutput(Sound):
    """writes one element too many"""

    kernels = (_one_more,)


# ---- errors ----


class _HoldsOn(KernelProgram):
    busy = False

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        if self.busy:
            raise RuntimeError("acme error 12: the queue is busy")
        self.busy = True
        results = super().run(context, inputs)
        self.busy = False
        return results


@reported_by(
    "errors/in_begin", "contract/can_be_cancelled", "contract/reports_impossible_shapes", may=["threads/*"]
)
class StaysBusyAfterAnError(Sound):
    """does not give its queue back when a run fails"""

    def compile(self, subgraph: Subgraph) -> Program:
        return _HoldsOn(subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)


# ---- what is left over ----

KEPT: list[Any] = []


@reported_by("contract/gives_back_sessions")
class LeaksSessions(Sound):
    """keeps four kilobytes of each session"""

    def compile(self, subgraph: Subgraph) -> Program:
        KEPT.append(np.ones(512))
        return super().compile(subgraph)


@reported_by("contract/gives_back_runs", "contract/gives_back_sessions")
class LeaksRuns(with_kernel("Relu", lambda x: (KEPT.append(np.ones(512)), np.maximum(x, 0))[1])):
    """keeps four kilobytes of each run"""


# ---- what it says ----


@reported_by("published/erf")
class ClaimsWhatItCannotCompile(with_kernel("Erf", lambda x: x)):
    """has no compiler for what it claims"""

    def compile(self, subgraph: Subgraph) -> Program:
        if any(node.op_type == "Erf" for node in subgraph.nodes):
            raise NotImplementedError("Erf is for the next release")
        return super().compile(subgraph)


@reported_by("contract/explains_every_refusal")
class IsSilent(Sound):
    """neither claims nor refuses what it does not know"""

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        return (answer for answer in super().claim(graph) if isinstance(answer, Claim))


TURNS = itertools.count()


@reported_by(
    "contract/claims_the_same_twice",
    may=["contract/*", "threads/*", "capture/*", "published/sigmoid", "graphs/*", "pairs/*"],
)
class ChangesItsMind(Sound):
    """claims Sigmoid every other time"""

    def claim(self, graph: Subgraph) -> Iterable[Claim | Refusal]:
        for answer in super().claim(graph):
            node = answer.node if isinstance(answer, Refusal) else answer.nodes[0]
            if node.op_type == "Sigmoid" and next(TURNS) % 2:
                yield Refusal(node, "cost", "not today")
            else:
                yield answer


NAMES = itertools.count()


@reported_by("describe/answers_twice_alike")
class HasUnstableDevices(Sound):
    """gives its device another name each time"""

    def devices(self) -> Devices:
        return Devices((Device(f"toy:{next(NAMES)}", "toy"),))


@reported_by("describe/names_its_devices")
class HasTwins(Sound):
    """has two devices of one name"""

    def devices(self) -> Devices:
        return Devices((Device("toy:0", "toy"), Device("toy:0", "toy")))


@reported_by("contract/answers_ill_typed_options")
class TakesAnyOption(Sound):
    """has an option of any type"""

    @dataclass(frozen=True)
    class Options:
        """level: whatever you like."""

        level: Any = 0


@reported_by("describe/has_frozen_options")
class HasLooseOptions(Sound):
    """has options that anybody may change"""

    @dataclass
    class Options:
        """level: 0 to 3."""

        level: int = 0


# ---- the record ----


class _Silent(RunContext):
    def __init__(self, context: RunContext, replaced: Any = None) -> None:
        self.context, self.device, self.stream, self.replaced = (
            context,
            context.device,
            context.stream,
            replaced,
        )

    def empty(self, value: Any, shape: Sequence[int], dtype: Any) -> Any:
        return self.context.empty(value, shape, dtype)

    def begin(self, node: Any) -> None:
        if self.replaced is not None:
            self.context.begin(self.replaced)

    def end(self, node: Any) -> None:
        if self.replaced is not None:
            self.context.end(self.replaced)


class _Unreported(KernelProgram):
    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        return super().run(_Silent(context), inputs)


@reported_by("contract/reports_what_it_runs")
class ReportsNothing(Sound):
    """promises steps, and never calls begin or end"""

    def compile(self, subgraph: Subgraph) -> Program:
        return _Unreported(subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)


class _Misreported(KernelProgram):
    def __init__(self, subgraph: Subgraph, *rest: Any) -> None:
        super().__init__(subgraph, *rest)
        self.first = subgraph.nodes[0]

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        return super().run(_Silent(context, self.first), inputs)


@reported_by("contract/reports_what_it_runs")
class ReportsOtherNodes(Sound):
    """reports its first node, whatever it runs"""

    def compile(self, subgraph: Subgraph) -> Program:
        return _Misreported(subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)


class _Delegating(Program):
    def __init__(self, subgraph: Subgraph) -> None:
        self.session = epkit.load(subgraph.to_model(), ["cpu"])

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        names = [info.name for info in self.session.inputs]
        return list(self.session.run(None, dict(zip(names, inputs, strict=True))).values())

    def close(self) -> None:
        self.session.close()


@reported_by("contract/computes_itself", may=["contract/gives_back_*"])
class LetsTheCpuWork(Sound):
    """claims everything, and hands it to the CPU provider behind the record's back"""

    def compile(self, subgraph: Subgraph) -> Program:
        return _Delegating(subgraph)

    def memory_steps(self, subgraph: Subgraph) -> Any:
        return super(type(self).__mro__[-4], self).memory_steps(subgraph)


# ---- artifacts ----

RESTORED: dict[Any, Any] = {}


@reported_by("artifacts/tells_models_apart")
class RestoresAStaleArtifact(Unusual):
    """restores programs with the weights that it restored first"""

    def restore(self, saved: bytes, subgraph: Subgraph) -> Program:
        operators = tuple(node.op_type for node in subgraph.nodes)

        def constant(array: Any) -> Any:
            return RESTORED.setdefault((operators, array.shape, array.dtype), self.constant(array))

        return KernelProgram(subgraph, lambda node: self.kernel_for(node, subgraph), constant)

    def close(self) -> None:
        """Keeps the weights."""


@reported_by("artifacts/refuses_what_was_made_elsewhere")
class HidesAnOption(Unusual):
    """has an option that programs depend on and that is not in the text of its options"""

    @dataclass(frozen=True)
    class Options:
        """fast: with less accuracy."""

        fast: bool = field(default=False, repr=False)


SERIAL = itertools.count()


@reported_by(
    "artifacts/restores_in_a_new_session", "artifacts/refuses_what_was_made_elsewhere", may=["artifacts/*"]
)
class HasAnUnstableFingerprint(Unusual):
    """has another fingerprint each time"""

    def fingerprint(self, device: Device) -> str:
        return str(next(SERIAL))


@reported_by(
    "artifacts/restores_in_a_new_session",
    "artifacts/refuses_what_was_made_elsewhere",
    "artifacts/refuses_what_is_damaged",
)
class SavesNothing(Unusual):
    """says that it saves, and gives None"""

    def save(self, program: Program) -> bytes | None:
        return None


# ---- capture ----


class _OldValues(Replay):
    def __init__(self, program: Program, outputs: Sequence[Any]) -> None:
        super().__init__(program)
        self.outputs = outputs

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        return [array.copy() for array in self.outputs]


class _Recording(Capturing):
    def capture(self, context: RunContext, inputs: Sequence[Any]) -> Program | None:
        return _OldValues(self, [array.copy() for array in self.run(context, inputs)])


@reported_by(
    "capture/replays",
    "capture/replays_new_values",
    "capture/replays_in_threads",
    "capture/follows_other_shapes",
    "capture/gives_back_replays",
)
class ReplaysOldValues(Sound):
    """replays the results that it recorded"""

    def compile(self, subgraph: Subgraph) -> Program:
        return _Recording(subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)


class _Shared(Replay):
    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.kept: list[Any] | None = None

    def run(self, context: RunContext, inputs: Sequence[Any]) -> Sequence[Any]:
        results = super().run(context, inputs)
        if self.kept is None:
            self.kept = [array.copy() for array in results]
        for kept, array in zip(self.kept, results, strict=True):
            kept[...] = array
        return self.kept


class _SharedRecording(Capturing):
    def capture(self, context: RunContext, inputs: Sequence[Any]) -> Program | None:
        return _Shared(self)


@reported_by("capture/gives_replayed_outputs_away", may=["capture/replays_in_threads"])
class ReplaysIntoOneBuffer(Sound):
    """gives out the memory of its recording"""

    def compile(self, subgraph: Subgraph) -> Program:
        return _SharedRecording(subgraph, lambda node: self.kernel_for(node, subgraph), self.constant)
