"""The cases that ONNX publishes as files: small models and operators as PyTorch exports them, and real networks.

The networks come with weights that a formula gives, so that they are whole and small; their inputs and outputs
are those of ONNX's own runner. Data are read when a case runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from ..case import PUBLISHED, Case
from ..evidence import Expectation, run_model
from ..result import Result
from .dynamic import made_symbolic
from .published import matrix_place

KINDS = ("simple", "pytorch-converted", "pytorch-operator")
DATA = Path(onnx.backend.test.__path__[0]) / "data"


def cases() -> Iterator[Case]:
    """Each as published, and with names for the dimensions of its inputs; the networks as they are."""
    for kind in KINDS:
        for item in sorted(load_model_tests(kind=kind), key=lambda item: item.name):
            folder, tolerance = Path(str(item.model_dir)), Expectation(item.rtol, item.atol)
            place = matrix_place(onnx.load(folder / "model.onnx"))
            name = f"{kind}/{item.name.removeprefix('test_').removeprefix('operator_')}"
            as_it_is, symbolic = _runner(folder, tolerance), _symbolic(folder, tolerance)
            yield Case(f"published/{name}", 2, "published", as_it_is, *place, oracle=PUBLISHED)
            yield Case(f"dynamic/{name}/symbolic", 2, "dynamic", symbolic, *place, oracle=PUBLISHED)
    for path in sorted((DATA / "light").glob("*.onnx")):
        name = path.stem.removeprefix("light_")
        yield Case(f"models/{name}/as_published", 3, "models", _network(path), seconds=300, oracle=PUBLISHED)


def _runner(folder: Path, tolerance: Expectation) -> Callable[[str], Result]:
    return lambda provider: run_model(
        onnx.load(folder / "model.onnx"), list(data_sets(folder)), provider, tolerance
    )


def _symbolic(folder: Path, tolerance: Expectation) -> Callable[[str], Result]:
    return lambda provider: run_model(
        made_symbolic(onnx.load(folder / "model.onnx")), list(data_sets(folder)), provider, tolerance
    )


def data_sets(folder: Path) -> Iterator[tuple[list[Any], list[Any]]]:
    """Pairs of inputs and outputs, as protobuf values of the kinds that the model says."""
    model = onnx.load(folder / "model.onnx")
    for place in sorted(folder.glob("test_data_set_*")):
        yield (
            [_read(place / f"input_{index}.pb", item) for index, item in enumerate(_given(model.graph))],
            [_read(place / f"output_{index}.pb", item) for index, item in enumerate(model.graph.output)],
        )


def _given(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """The inputs that are no weights."""
    weights = {tensor.name for tensor in graph.initializer}
    return [item for item in graph.input if item.name not in weights]


def _read(path: Path, item: onnx.ValueInfoProto) -> Any:
    kinds = {"sequence_type": onnx.SequenceProto, "optional_type": onnx.OptionalProto}
    value: Any = kinds.get(str(item.type.WhichOneof("value")), onnx.TensorProto)()
    value.ParseFromString(path.read_bytes())
    return value


def _network(path: Path) -> Callable[[str], Result]:
    def run(provider: str) -> Result:
        model = onnx.load(path)
        (item,) = _given(model.graph)
        shape = [dim.dim_value or 1 for dim in item.type.tensor_type.shape.dim]
        ramp = (np.arange(np.prod(shape)).reshape(shape) / np.prod(shape)).astype(np.float32)
        wanted = onnx.TensorProto()
        wanted.ParseFromString(path.with_name(f"{path.stem}_output_0.pb").read_bytes())
        tolerance = Expectation(2e-3, 1e-6)
        return run_model(model, [([ramp], [numpy_helper.to_array(wanted)])], provider, tolerance)

    return run
