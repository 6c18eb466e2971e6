"""A model on the device without a session around it: inputs and results stay there, a captured graph is launched."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

import epkit
from epkit.backend import RunContext
from epkit_cuda.device import describe
from epkit_cuda.memory import Tensor
from epkit_cuda.provider import CudaProvider

WARM = 3


class Results(RunContext):
    """A run whose results live in the memory that the first one took."""

    observed = False

    def __init__(self, provider: CudaProvider) -> None:
        self.machine = provider.machine
        self.device = describe(provider.machine)
        self.stream = self.queue = provider.streams.take()
        self._kept: dict[Any, Tensor] = {}

    def empty(self, value: ir.Value, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
        """Memory of this value."""
        key = (value, tuple(shape))
        if key not in self._kept:
            self._kept[key] = Tensor(self.machine.xp.empty(tuple(shape), dtype))
        return self._kept[key]

    def forget(self) -> None:
        """Give the memory of all values back."""
        self._kept.clear()

    def begin(self, node: ir.Node) -> None:
        return None

    def end(self, node: ir.Node) -> None:
        return None


class OnDevice:
    """One model, whole on the device.

    Args:
        path: of the model.
        precision: the provider's option.
        level: the optimiser's.
        feeds: inputs by name.

    Raises:
        epkit.errors.PlacementError: if a node would run elsewhere.
        RuntimeError: if the model is more than one partition, or is not captured.
    """

    def __init__(self, path: Path, precision: str, level: str, feeds: Mapping[str, Any]) -> None:
        options = [("cuda", {"precision": precision})]
        self.session = epkit.load(path, options, fallback="error", optimise=level, capture=True)
        self._feeds = feeds
        self._given: dict[str, Any] = {}
        engine = self.session._engine
        programs = list(engine.compiled.programs.values())
        provider = engine.bounds[0].provider
        if len(programs) != 1 or not isinstance(provider, CudaProvider):
            raise RuntimeError(f"{path.name} is {len(programs)} partitions")
        self.provider, program = provider, programs[0]
        self.context = Results(provider)
        with provider.machine.using(self.context.queue.raw):
            self.inputs = [provider.constant(np.asarray(feeds[name])) for name in self._names(program)]
        for _ in range(WARM):
            program.run(self.context, self.inputs)
        self.wait()
        replay = program.capture(self.context, self.inputs)
        if replay is None:
            raise RuntimeError(f"{path.name} was not captured")
        self.replay: Any = replay
        self.context.forget()
        release()
        self._memory = memory_held()

    def _names(self, program: Any) -> list[str]:
        """The partition's inputs; a shape's part of a model needs none of them."""
        slots = sorted(program._slots.items(), key=lambda pair: pair[1])[: program._inputs]
        return [str(value.name) for value, _ in slots]

    def wait(self) -> None:
        """Until everything is done."""
        self.context.stream.synchronize()

    def run(self) -> list[Tensor]:
        """One run, waited for."""
        results = list(self.replay.run(self.context, self.inputs))
        self.wait()
        return results

    def through_session(self) -> Mapping[str, Any]:
        """One run through the session; inputs and results stay on the device."""
        if not self._given:
            with self.provider.machine.using(self.context.queue.raw):
                self._given = {
                    name: self.provider.machine.xp.asarray(value) for name, value in self._feeds.items()
                }
            self.wait()
        return self.session.run(None, self._given, epkit.RunOptions(on_device=True))

    def host_seconds(self, rounds: int) -> float:
        """Median seconds in which the host enqueues a run."""
        found = []
        for _ in range(rounds):
            start = time.perf_counter()
            self.replay.run(self.context, self.inputs)
            found.append(time.perf_counter() - start)
            self.wait()
        return float(np.median(found))

    def memory(self) -> int:
        """Bytes held for weights, values and the captured graph."""
        return self._memory + int(self.replay.recordings[0].memory.total_bytes())  # one pool for all of them

    def close(self) -> None:
        """Give everything back."""
        self.replay.close()
        self.session.close()


def memory_held() -> int:
    """Bytes that CuPy's pool has of the device."""
    import cupy

    return int(cupy.get_default_memory_pool().total_bytes())


def release() -> None:
    """Give what nobody uses back to the driver."""
    import gc

    import cupy

    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
