"""NVIDIA GPUs: the options, finding devices, and the reasons where there are none."""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from dataclasses import dataclass
from typing import Literal

from epkit.backend import Device, Devices

from .machine import Machine

Precision = Literal["fp32", "tf32", "fp16", "bf16"]


@dataclass(frozen=True)
class Options:
    """The provider's options.

    Attributes:
        device: index of the GPU.
        precision: of the operands of float32 products and convolutions; sums are in float32 always. ``fp32`` is
            strict.
        stream: address of a ``cudaStream_t`` to work in; 0: each run has a stream of its own.
    """

    device: int = 0
    precision: Precision = "fp32"
    stream: int = 0

    def __post_init__(self) -> None:
        if self.device < 0:
            raise ValueError(f"device is {self.device}, expected the index of a GPU, 0 or more")
        if self.stream < 0:
            raise ValueError(f"stream is {self.stream}, expected the address of a stream, or 0")


DRIVER = "libcuda.so.1"
NO_DRIVER = (
    "install the maker's driver for your GPU; `nvidia-smi` shows whether it works (in a container: start it "
    "with its GPUs, such as `docker run --gpus all`)"
)
NO_CUPY = "pip install epkit-cuda[cu13] (or epkit-cuda[cu12] for a driver older than 580)"


def has_driver() -> bool:
    """True if the driver's library can be loaded."""
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        return False
    return True


def has_cupy() -> bool:
    """True if CuPy is installed; does not import it."""
    return importlib.util.find_spec("cupy") is not None


def find_devices(options: Options) -> Devices:
    """The chosen GPU; if there is none, why and what to do."""
    if not has_driver():
        return Devices((), "no NVIDIA driver", NO_DRIVER)
    if not has_cupy():
        return Devices((), "CuPy is not installed", NO_CUPY)
    try:
        from .cupy_machine import count

        found = count()
        if options.device >= found:
            remedy = f"device may be 0 to {found - 1}" if found else NO_DRIVER
            return Devices((), f"no GPU has index {options.device}: the driver shows {found}", remedy)
        return Devices((describe(open_machine(options.device)),))
    except Exception as error:
        return Devices((), f"the driver does not work: {type(error).__name__}: {error}", NO_DRIVER)


def describe(machine: Machine) -> Device:
    """The GPU as the core knows it."""
    return Device(f"cuda:{machine.index}", "gpu", machine.name, machine.memory_bytes, host_memory=False)


_machines: dict[int, Machine] = {}
_lock = threading.Lock()


def open_machine(index: int) -> Machine:
    """The GPU of that index, opened once for the process."""
    with _lock:
        if index not in _machines:
            from .cupy_machine import CupyMachine

            _machines[index] = CupyMachine(index)
        return _machines[index]
