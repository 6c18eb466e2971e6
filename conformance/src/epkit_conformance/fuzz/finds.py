"""Finds as files: a folder each, with the model, its inputs, what was expected and what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ..result import State
from .judge import Verdict, judge
from .trial import Expected, Trial, expected


@dataclass(frozen=True)
class Find:
    """A trial that a provider gets wrong, as small as it could be made."""

    trial: Trial
    wanted: Sequence[Expected]
    verdict: Verdict

    @property
    def title(self) -> str:
        """Such as ``failed-Relu-float32``."""
        state = self.verdict.state.value.replace(" ", "-")
        return "-".join([state, *sorted(self.trial.operators), self.trial.dtype])

    def is_like(self, trial: Trial, verdict: Verdict) -> bool:
        """True if another trial shows no more than this find does."""
        return (
            verdict.state is self.verdict.state
            and self.trial.operators <= trial.operators
            and (len(trial.operators) > 1 or trial.dtype == self.trial.dtype)
        )


def save(find: Find, folder: Path, number: int, provider: str) -> Path:
    """Write a find in the layout of ONNX's own test data; returns its folder.

    ``model.onnx``, ``test_data_set_0/input_*.pb`` and ``output_*.pb`` (what was expected), ``found_*.npy`` where
    the provider gave an answer, and ``find.txt`` with what is wrong and the line that shows it again.
    """
    place = folder / f"{number:03d}-{find.title}"[:120]
    data = place / "test_data_set_0"
    data.mkdir(parents=True, exist_ok=True)
    onnx.save(find.trial.model, place / "model.onnx")
    for index, item in enumerate(find.trial.model.graph.input):
        _write(data / f"input_{index}.pb", find.trial.feeds[item.name], item.name)
    for index, (item, want) in enumerate(zip(find.trial.model.graph.output, find.wanted, strict=True)):
        _write(data / f"output_{index}.pb", want.values, item.name)
    for index, array in enumerate(find.verdict.found):
        np.save(place / f"found_{index}.npy", np.asarray(array), allow_pickle=False)
    (place / "find.txt").write_text(describe(find, place, provider), encoding="utf-8")
    return place


def describe(find: Find, place: Path, provider: str) -> str:
    """The find in words."""
    lines = [f"{provider}: {find.verdict.state.value}: {find.verdict.detail}", ""]
    lines += [onnx.printer.to_text(find.trial.model), ""]
    lines += [f"{name} = {array!r}" for name, array in find.trial.feeds.items()]
    for item, want in zip(find.trial.model.graph.output, find.wanted, strict=True):
        lines.append(f"{item.name} must be {want.values!r}")
    lines += [f"found {array!r}" for array in find.verdict.found]
    return "\n".join([*lines, "", f"epkit conformance fuzz {provider} --replay {place}", ""])


def replay(place: Path, provider: str) -> Verdict:
    """Try a find again, in this process.

    Raises:
        OSError: if there is no such find.
    """
    model = onnx.load(place / "model.onnx")
    data = place / "test_data_set_0"
    arrays = [_read(data / f"input_{index}.pb") for index in range(len(model.graph.input))]
    feeds = {item.name: array for item, array in zip(model.graph.input, arrays, strict=True)}
    wanted = expected(Trial(model, feeds, ""))
    if wanted is None:
        return Verdict(State.UNSUPPORTED, "onnx.reference has no answer")
    return judge(model, feeds, wanted, provider)


def _write(path: Path, array: Any, name: str) -> None:
    path.write_bytes(numpy_helper.from_array(np.asarray(array), name).SerializeToString())


def _read(path: Path) -> Any:
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)
