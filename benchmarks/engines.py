"""How each engine makes a function of a model; only the one that is asked for is imported."""

from __future__ import annotations

import importlib.util
import pickle
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .measure import Seconds

Run = Callable[[Mapping[str, Any]], Any]


def engines(
    threads: int, precision: str = "fp32", openvino: str = ""
) -> dict[str, Callable[[str | bytes], Run]]:
    """How each engine makes a function from feeds to outputs of a model.

    Args:
        openvino: the Python of an environment that has OpenVINO, where this one has not.
    """
    found = {
        "epkit": lambda model: epkit_run(model, threads, precision),
        "onnxruntime": lambda model: onnxruntime_run(model, threads),
    }
    if openvino:
        found["OpenVINO"] = lambda model: OpenvinoChild(openvino, model, threads, precision)
    elif importlib.util.find_spec("openvino") is not None:
        found["OpenVINO"] = lambda model: openvino_run(model, threads, precision)
    return found


def epkit_run(model: str | bytes, threads: int, precision: str = "fp32") -> Run:
    import epkit

    session = epkit.load(model, [("cpu", {"threads": threads, "precision": precision})], optimise="all")
    return lambda feeds: session.run(None, feeds)


def onnxruntime_run(model: str | bytes, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(None, feeds), strict=True))


HINTS = {"fp32": "f32", "bf16": "bf16"}
"""OpenVINO's names of precisions."""


class CannotRun(Exception):
    """A peer does not run the model; it has said why on stderr."""


class OpenvinoChild:
    """A model in a process of another environment, which times itself: what passes between the two is not counted."""

    def __init__(self, python: str, model: str | bytes, threads: int, precision: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "model.onnx"
        if isinstance(model, bytes):
            path.write_bytes(model)
        child = str(Path(__file__).with_name("openvino_child.py"))
        file = model if isinstance(model, str) else str(path)
        self._process = subprocess.Popen(
            [python, child, file, str(threads), HINTS[precision]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={},
        )
        self.loading = float(self._answer())
        self._feeds: Sequence[Mapping[str, Any]] = ()

    def __call__(self, feeds: Mapping[str, Any]) -> Any:
        self._know([feeds])
        return self._ask("run", 0)

    def many(self, feeds: Sequence[Mapping[str, Any]], repeat: int) -> Seconds:
        """Seconds that all feeds took, several times."""
        self._know(feeds)
        return Seconds(self._ask("time", repeat))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._folder.cleanup()

    def _know(self, feeds: Sequence[Mapping[str, Any]]) -> None:
        if len(self._feeds) != len(feeds) or any(a is not b for a, b in zip(self._feeds, feeds, strict=True)):
            self._ask("feeds", [dict(feed) for feed in feeds])
            self._feeds = list(feeds)

    def _ask(self, what: str, argument: object) -> Any:
        assert self._process.stdin is not None
        pickle.dump((what, argument), self._process.stdin)
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        try:
            return pickle.load(self._process.stdout)  # from the child that we started
        except EOFError:
            raise CannotRun("OpenVINO") from None


def openvino_run(model: str | bytes, threads: int, precision: str = "fp32") -> Run:
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": HINTS[precision]}
    source = model if isinstance(model, str) else core.read_model(model, b"")
    request = core.compile_model(source, "CPU", options).create_infer_request()
    return lambda feeds: request.infer(dict(feeds))
