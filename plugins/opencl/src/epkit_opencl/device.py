"""OpenCL devices: finding them, choosing one, and what it can do."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any, Literal

from epkit.backend import Device, Devices

from .quirks import Facts, facts_of


@dataclass(frozen=True)
class Options:
    """The provider's options.

    Attributes:
        device: an index, a type (``cpu``, ``gpu``, ``accelerator``) or part of a device's name; "" is the
            first GPU, else the first device.
        work_items, local_memory: use at most so many work-items in a group and bytes of local memory.
        fp64, int64: False: do without these types.
        tune: measure which way large products are computed fastest; the choice is kept in the cache.
        memory: what values lie in: "buffers", or "svm", shared virtual memory.
    """

    device: str = ""
    work_items: int | None = None
    local_memory: int | None = None
    fp64: bool = True
    int64: bool = True
    tune: bool = True
    memory: Literal["buffers", "svm"] = "buffers"


@dataclass(frozen=True)
class Limits:
    """What kernels may use of a device: what it reports (see ``quirks``), and the options allow.

    Attributes:
        work_items: of a work-group.
        local_memory: bytes.
        is_cpu: a CPU does best with few, large work-items; a GPU with many small ones.
        fp64, int64: element types that kernels may use; float16 every device has (see ``kernels.half``).
        int64_atomics: whether int64 has atomic sums, minima and maxima.
        alignment: bytes, of buffers.
        tune: whether ways may be measured.
        svm: whether values lie in shared virtual memory.
    """

    work_items: int
    local_memory: int
    is_cpu: bool
    fp64: bool
    int64: bool
    int64_atomics: bool
    alignment: int
    tune: bool = True
    svm: bool = False


class Gpu:
    """One device with its context; shared by all sessions of the process."""

    def __init__(self, handle: Any) -> None:
        import pyopencl as cl

        self.handle = handle
        self.process = os.getpid()
        self.is_cpu = bool(handle.type & cl.device_type.CPU)
        self.shares_memory = bool(handle.host_unified_memory)
        self.facts: Facts = facts_of(handle)
        self.dots_of_four = self.facts.dots_of_four
        self.context = cl.Context([handle])
        self.lock = threading.RLock()
        self.programs: dict[str, Any] = {}
        self.choices: dict[str, str] | None = None
        self._threads = threading.local()

    @property
    def kernels(self) -> dict[tuple[str, str], Any]:
        """Kernels of this thread by source and name: between its arguments and its launch nobody else may
        set a kernel's arguments.
        """
        held: dict[tuple[str, str], Any] = self._threads.__dict__.setdefault("kernels", {})
        return held

    @property
    def driver(self) -> str:
        """Platform, device and driver, for fingerprints."""
        handle = self.handle
        return f"{handle.platform.version} | {handle.name} | {handle.version} | {handle.driver_version}"

    def check_process(self) -> None:
        """Drivers have threads, which a fork leaves behind.

        Raises:
            RuntimeError: in a child of the process that opened the device.
        """
        if self.process != os.getpid():
            raise RuntimeError(f"{FORKED}; {SPAWN}")


_opened: dict[int, Gpu] = {}
_lock = threading.Lock()


def open_device(handle: Any) -> Gpu:
    """The device with its context, made once for the process."""
    with _lock:
        key = int(handle.int_ptr)
        if key not in _opened:
            _opened[key] = Gpu(handle)
        return _opened[key]


def limits_of(handle: Any, options: Options) -> Limits:
    """What the device reports, and the options allow."""
    import pyopencl as cl

    facts = facts_of(handle)
    return Limits(
        min(facts.work_items, options.work_items or facts.work_items),
        min(facts.local_memory, options.local_memory or facts.local_memory),
        bool(handle.type & cl.device_type.CPU),
        options.fp64 and facts.fp64,
        options.int64,
        options.int64 and facts.int64_atomics,
        max(64, handle.mem_base_addr_align // 8),
        options.tune,
        options.memory == "svm",
    )


def all_handles() -> list[Any]:
    """Every device of every platform.

    Raises:
        ImportError, pyopencl.Error: if OpenCL is not there.
    """
    import pyopencl as cl

    return [device for platform in cl.get_platforms() for device in platform.get_devices()]


def find_devices(options: Options) -> Devices:
    """The devices that the options allow, the best first; if there are none, why and what to do."""
    if any(gpu.process != os.getpid() for gpu in _opened.values()):
        return Devices((), FORKED, SPAWN)
    try:
        handles = all_handles()
    except ImportError as error:
        return Devices((), f"pyopencl cannot be imported: {error}", "pip install pyopencl")
    except Exception as error:
        return Devices((), f"no OpenCL platform: {error}", DRIVER)
    if not handles:
        return Devices((), "OpenCL platforms are installed, and none has a device", PERMISSION)
    chosen = [index for index in ranked(handles) if fits(index, handles[index], options.device)]
    if not chosen:
        listed = "; ".join(f"{index}: {kind(handle)} {handle.name}" for index, handle in enumerate(handles))
        return Devices((), f"no OpenCL device fits device={options.device!r}", f"the devices are: {listed}")
    if options.memory == "svm" and not any(has_svm(handles[index]) for index in chosen):
        return Devices((), "the device has no shared virtual memory (OpenCL 2.0)", 'use memory="buffers"')
    if options.memory == "svm":
        chosen = [index for index in chosen if has_svm(handles[index])]
    return Devices(tuple(describe(index, handles[index]) for index in chosen))


FORKED = "this process was forked from one that had already used OpenCL, whose threads are not here"
SPAWN = 'start processes anew: multiprocessing.get_context("spawn")'
DRIVER = "install a driver: your GPU maker's, or on Debian for the CPU: apt-get install pocl-opencl-icd"
PERMISSION = "check that you may open the device files (group render or video), and that the hardware is on"


def ranked(handles: list[Any]) -> list[int]:
    """Indices with GPUs first, then accelerators, then CPUs."""
    order = {"gpu": 0, "accelerator": 1, "cpu": 2}
    return sorted(range(len(handles)), key=lambda index: (order.get(kind(handles[index]), 3), index))


def fits(index: int, handle: Any, wanted: str) -> bool:
    """True if the option ``device`` means this one."""
    if wanted.isdecimal():
        return int(wanted) == index
    return wanted.lower() in (kind(handle), "") or (len(wanted) > 3 and wanted.lower() in handle.name.lower())


def has_svm(handle: Any) -> bool:
    """True if host and device can share memory by pointers, if only in turns."""
    import pyopencl as cl

    try:
        return bool(handle.svm_capabilities & cl.device_svm_capabilities.COARSE_GRAIN_BUFFER)
    except cl.Error:  # a device of OpenCL 1 does not know the question
        return False


def kind(handle: Any) -> str:
    """``cpu``, ``gpu`` or ``accelerator``."""
    import pyopencl as cl

    for name in ("gpu", "cpu", "accelerator"):
        if handle.type & getattr(cl.device_type, name.upper()):
            return name
    return "device"


def describe(index: int, handle: Any) -> Device:
    """The device as the core knows it; its name holds the index."""
    description = f"{handle.name.strip()} ({facts_of(handle)})"
    return Device(f"opencl:{index}", kind(handle), description, handle.global_mem_size, host_memory=False)


def handle_of(device: Device) -> Any:
    """The OpenCL device behind one of ours."""
    return all_handles()[int(device.name.partition(":")[2])]
