"""Building OpenCL programs, and launching their kernels. Binaries are kept by pyopencl, by device and driver."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from epkit.backend import RunContext
from epkit.errors import CompileError, Where

from .device import Gpu
from .memory import ClStream, Tensor
from .recording import Launch, NotCapturableError
from .transfer import read, write

C_TYPES = {
    "float32": "float",
    "float64": "double",
    "float16": "half",
    "int8": "char",
    "uint8": "uchar",
    "int16": "short",
    "uint16": "ushort",
    "int32": "int",
    "uint32": "uint",
    "int64": "long",
    "uint64": "ulong",
    "bool": "uchar",
}


OPTIONS = ("-cl-std=CL1.2", "-w")
"""Of every program, whatever the model; warnings are for who writes kernels, not for who runs models."""


def c_type(dtype: np.dtype[Any]) -> str:
    """The OpenCL C type of an element."""
    return C_TYPES[dtype.name]


def pragma(types: Sequence[str]) -> str:
    """What a program must say before it uses doubles."""
    return "#pragma OPENCL EXTENSION cl_khr_fp64 : enable\n" if "double" in types else ""


def built(gpu: Gpu, source: str) -> Any:
    """The program of a source text; built once.

    Raises:
        CompileError: with the compiler's words and the lines they are about.
    """
    import pyopencl as cl

    key = hashlib.sha256(source.encode()).hexdigest()
    with gpu.lock:
        if key not in gpu.programs:
            try:
                gpu.programs[key] = cl.Program(gpu.context, source).build(options=OPTIONS)
            except cl.Error as error:
                raise CompileError(
                    f"{gpu.handle.name.strip()} did not compile a kernel: {_explained(str(error), source)}",
                    where=Where(stage="compile", provider="opencl"),
                    remedy="report it with this text, and the versions that `epkit providers` shows",
                ) from error
        return gpu.programs[key]


def _explained(log: str, source: str) -> str:
    """The log, and the source lines that it names."""
    lines = source.splitlines()
    numbers = sorted({int(found) for found in re.findall(r":(\d+):\d+:", log)})
    told = [f"  line {n}: {lines[n - 1].strip()}" for n in numbers[:5] if 0 < n <= len(lines)]
    return "\n".join([log.strip()[-1500:], *told])


def launch(
    context: RunContext,
    source: str,
    name: str,
    size: Sequence[int],
    arguments: Sequence[Any],
    *,
    group: Sequence[int] | None = None,
) -> None:
    """Enqueue a kernel on the run's queue. A tensor becomes two arguments, the buffer and the first element;
    integers are ``int``, NumPy scalars what they are. Groups of one work-item are for CPUs, where each is a long
    loop, and one compiled form serves every size; elsewhere, and where the device has no group so large, the driver
    chooses.
    """
    stream = context.stream
    assert isinstance(stream, ClStream)
    if 0 in size:
        return
    flat: list[Any] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            flat += [argument.buffer, np.int64(argument.offset // max(1, argument.dtype.itemsize))]
        elif isinstance(argument, int):
            flat.append(np.int32(argument))
        else:
            flat.append(argument)
    kernel = kernel_of(stream, source, name, flat)
    kernel.set_args(*flat)
    one = group is not None and set(group) == {1}
    free = group is None or (one and not stream.gpu.is_cpu) or math.prod(group) > stream.limits.work_items
    local = None if free or group is None else tuple(group)
    enqueue(stream, Launch(kernel, tuple(size), local), arguments)


def kernel_of(stream: ClStream, source: str, name: str, arguments: Sequence[Any]) -> Any:
    """The kernel, made once for a thread: a launch copies its arguments. What a capture holds is its own."""
    kernels = stream.gpu.kernels
    found = kernels.get((source, name))
    if found is None or stream.recording is not None:
        found = new_kernel(stream.gpu, source, name, arguments)
        if stream.recording is None:
            kernels[source, name] = found
    return found


def new_kernel(gpu: Gpu, source: str, name: str, arguments: Sequence[Any]) -> Any:
    """A kernel that knows the types of its numbers: pyopencl finds out by trial otherwise, at every launch."""
    import pyopencl as cl

    kernel = cl.Kernel(built(gpu, source), name)
    kernel.set_scalar_arg_dtypes([getattr(argument, "dtype", None) for argument in arguments])
    return kernel


def enqueue(stream: ClStream, command: Callable[[Any], Any], needs: Sequence[Any] = ()) -> None:
    """Give a command to the queue; a capture notes it, and keeps what it needs alive."""
    command(stream.queue)
    if stream.recording is not None:
        stream.recording.commands.append(command)
        stream.recording.kept.extend(needs)


def empty(context: RunContext, value: Any, shape: Sequence[int], dtype: np.dtype[Any]) -> Tensor:
    """Memory for an output; what the host may know of earlier bytes there is forgotten."""
    found: Tensor = context.empty(value, tuple(shape), dtype)
    found.host = None
    return found


def download(context: RunContext, tensor: Tensor) -> np.ndarray[Any, Any]:
    """A tensor's values on the host; waits for the queue, unless the host knows them already."""
    if tensor.host is not None:
        return tensor.host
    stream = context.stream
    assert isinstance(stream, ClStream)
    if stream.recording is not None:
        raise NotCapturableError
    result = np.empty(tensor.shape, tensor.dtype)
    if result.nbytes:
        deliver = read(stream.gpu, stream.queue, tensor, result.reshape(-1).view(np.uint8))
        stream.queue.finish()
        if deliver is not None:
            deliver()
    return result


def upload(context: RunContext, array: np.ndarray[Any, Any], tensor: Tensor) -> Tensor:
    """Write host values into a tensor; the host remembers them."""
    stream = context.stream
    assert isinstance(stream, ClStream)
    tensor.host = np.ascontiguousarray(array).reshape(tensor.shape)
    if array.nbytes:
        flat = tensor.host.reshape(-1).view(np.uint8)
        enqueue(stream, lambda queue: write(stream.gpu, queue, tensor, flat), [tensor, flat])
    return tensor
