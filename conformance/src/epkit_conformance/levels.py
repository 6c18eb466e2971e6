"""The levels: what each proves, and what to write to reach it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Level:
    """A rung of bring-up.

    Attributes:
        title: what a provider that passes can be trusted with.
        write: the members to write for it.
        example: the smallest ones that would do.
        optional: True if a provider may leave the members out; the level then does not apply.
    """

    number: int
    title: str
    write: str
    example: str
    optional: bool


LEVELS = (
    Level(
        0,
        "loads and describes itself",
        "name, version, devices()",
        """class AcmeProvider(ep.KernelProvider):
    name = "acme"
    version = "0.1.0"

    def devices(self) -> ep.Devices:
        return ep.Devices((ep.Device("acme:0", "npu", "Acme One"),))""",
        False,
    ),
    Level(
        1,
        "one kernel runs",
        "claim() and compile(), or one @kernel",
        """@ep.kernel("Relu", since=6, types={"T": {"float32"}})
def relu(x):
    return acme.relu(x)""",
        False,
    ),
    Level(
        2,
        "operators",
        "more kernels; types=, since= and when= say what each takes",
        """@ep.kernel("MatMul", types={"T": {"float32"}}, when=is_2d)
def matmul(a, b):
    return acme.gemm(a, b)""",
        False,
    ),
    Level(
        3,
        "partitions and control flow",
        "nothing new: compile() must do with any convex set of the nodes that claim() named",
        """def compile(self, subgraph):
    return AcmeProgram(subgraph.nodes, subgraph.inputs, subgraph.outputs)""",
        False,
    ),
    Level(
        4,
        "device memory and transfers",
        "Device(host_memory=False) and allocator()",
        """def allocator(self, device):
    return AcmeAllocator()  # allocate, free, view, copy_in, copy_out""",
        True,
    ),
    Level(
        5,
        "streams and concurrency",
        "stream()",
        """def stream(self, device):
    return AcmeStream()  # record, synchronize, close""",
        False,
    ),
    Level(
        6,
        "saved artifacts",
        "save(), restore() and fingerprint()",
        """def save(self, program):
    return program.binary

def restore(self, saved, subgraph):
    return AcmeProgram.from_binary(saved, subgraph)""",
        True,
    ),
    Level(
        7,
        "capture and replay",
        "Program.capture()",
        """def capture(self, context, inputs):
    return AcmeReplay(self.record(inputs))""",
        True,
    ),
)
