"""The peers of the CUDA benchmark, where they are installed: inputs and results stay on the device."""

from __future__ import annotations

import gc
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Run = Callable[[], object]


class Torch:
    """The same graph in PyTorch.

    Args:
        path: of the model.
        feeds: inputs by name.
        precision: as the provider's option names it.

    Raises:
        RuntimeError: if torch sees no GPU.
    """

    def __init__(self, path: Path, feeds: dict[str, Any], precision: str) -> None:
        import torch

        from .cuda_torch import Graph, as_torch

        if not torch.cuda.is_available():
            raise RuntimeError("torch sees no GPU")
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        gc.collect()
        torch._dynamo.reset()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        self.before = torch.cuda.memory_reserved()
        self.model = Graph(path, "cuda").eval()
        self.given = [as_torch(feeds[name]).to("cuda") for name in self.model.inputs]
        if precision != "fp32":
            last = torch.channels_last
            self.model = self.model.to(memory_format=last)
            self.given = [
                x.to(memory_format=last) if x.ndim == 4 and x.shape[1] == 3 else x for x in self.given
            ]

    def _runner(self, function: Any) -> Run:
        import torch

        def run() -> object:
            with torch.inference_mode():
                result = function(*self.given)
            torch.cuda.synchronize()
            return result

        return run

    def eager(self) -> tuple[Run, int]:
        """A run as it stands, and the bytes of the device that weights, inputs and it take."""
        import torch

        run = self._runner(self.model)
        run()
        return run, int(torch.cuda.max_memory_reserved()) - self.before

    def compiled(self) -> Run:
        """By ``torch.compile`` with CUDA graphs; compiles now, which may take minutes."""
        import torch

        run = self._runner(torch.compile(self.model, mode="max-autotune"))
        for _ in range(4):  # the graphs are recorded in the second and the third
            run()
        return run


def onnxruntime_peer(path: Path, feeds: dict[str, Any], precision: str) -> dict[str, Run]:
    """onnxruntime's CUDA provider, where it is installed, with its inputs and results on the device."""
    if not find_spec("onnxruntime") or precision == "bf16":
        return {}
    import onnxruntime

    name = "CUDAExecutionProvider"
    if name not in onnxruntime.get_available_providers():
        return {}
    providers = [(name, {"use_tf32": int(precision == "tf32")})]
    session = onnxruntime.InferenceSession(path, providers=providers)
    binding = session.io_binding()
    for key, value in feeds.items():
        binding.bind_ortvalue_input(key, onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda")

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return {"onnxruntime": run}
