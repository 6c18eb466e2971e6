"""The ``onnx.backend`` interface, so that ONNX's own test runner and other callers of it work unchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep

from ..aliases import DEFAULT_FALLBACK
from ..api import load
from ..runtime.session import Session


class Prepared(BackendRep):
    """A model that is ready to run."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Run with inputs by position (a sequence, or a single array) or by name (a mapping)."""
        names = [info.name for info in self.session.inputs]
        if isinstance(inputs, Mapping):
            feeds = dict(inputs)
        else:
            given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
            feeds = dict(zip(names, given, strict=False))
        results = self.session.run(None, feeds)
        return tuple(results[info.name] for info in self.session.outputs)


class EpkitBackend(Backend):
    """Runs models on the providers of ``providers`` (class attribute), then on the fallback."""

    providers: Sequence[str] = (DEFAULT_FALLBACK,)

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> Prepared:
        """Load a model. ``kwargs`` go to :func:`epkit.load`.

        Nothing is fused unless they say so: the runner asks for float16 with the roundings of each node.
        """
        return Prepared(load(model, cls.providers, **{"optimise": "basic", **kwargs}))

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        """Load and run once."""
        with cls.prepare(model, device, **kwargs).session as session:
            return Prepared(session).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run one node; inputs are arrays in the order of the node's inputs."""
        arrays = [np.asarray(item) for item in inputs]
        infos = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
            )
            for name, array in zip(node.input, arrays, strict=True)
        ]
        results = [onnx.helper.make_empty_tensor_value_info(name) for name in node.output]
        graph = onnx.helper.make_graph([node], "node", infos, results)
        opsets = [onnx.helper.make_opsetid("", kwargs.pop("opset_version", onnx.defs.onnx_opset_version()))]
        return cls.run_model(onnx.helper.make_model(graph, opset_imports=opsets), arrays, device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """The CPU; other hardware is chosen by provider name."""
        return device.upper() == "CPU"


prepare = EpkitBackend.prepare
run_model = EpkitBackend.run_model
run_node = EpkitBackend.run_node
supports_device = EpkitBackend.supports_device
