"""What to write next: for a failed case the member at fault, for a level the smallest code that would reach it."""

from __future__ import annotations

import keyword
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx.defs

from .certification import Certification, Status
from .levels import LEVELS
from .operator_sets import standings
from .record import Entry, Report
from .result import State


@dataclass(frozen=True)
class Advice:
    """A next step.

    Attributes:
        write: the member to write or correct, such as ``"Allocator.view()"``.
        why: what the suite asks of it, in a sentence.
        example: the smallest code that would do.
    """

    write: str
    why: str
    example: str

    def __str__(self) -> str:
        code = "".join(f"\n    {line}" for line in self.example.splitlines())
        return f"look at {self.write}: {self.why}{code}"


# ---- for a failed case ----

DEVICES = Advice(
    "Provider.devices()",
    "It names each device once, the same on every call; none at all needs a reason and a remedy.",
    """def devices(self):
    found = [ep.Device(f"acme:{n}", "npu", name) for n, name in enumerate(driver.devices())]
    return ep.Devices(tuple(found), reason="no acme on the bus", remedy="check that the card is seated")""",
)
OPTIONS = Advice(
    "Provider.Options",
    "Options are a frozen dataclass whose fields all have defaults; the core refuses what does not fit.",
    """@dataclass(frozen=True)
class AcmeOptions:
    \"\"\"threads: how many to use.\"\"\"

    threads: int = 1""",
)
KERNEL = Advice(
    "the kernel named by the case",
    "It answers wrongly. Correct it, or narrow types=, since= or when= so that claim() refuses what it cannot do.",
    """def takes(node):
    return node.inputs[0].shape is not None or "the device needs a known rank"

@ep.kernel("Relu", since=6, types={"T": {"float32"}}, when=takes)
def relu(x):
    return acme.relu(x)""",
)
COMPILE = Advice(
    "Provider.compile()",
    "It gets any convex set of the claimed nodes, in order: also values used twice, and outputs that are inputs.",
    """def compile(self, subgraph):
    return AcmeProgram(subgraph)

class AcmeProgram(ep.Program):
    def run(self, context, inputs):
        values = dict(zip(self.subgraph.inputs, inputs))
        for node in self.subgraph.nodes:
            context.begin(node)
            values.update(zip(node.outputs, launch(node, values)))
            context.end(node)
        return [values[value] for value in self.subgraph.outputs]""",
)
CLAIM = Advice(
    "Provider.claim()",
    "A pure function of the graph: the same claims each time, and a Refusal with a reason for every other node.",
    """def claim(self, graph):
    for node in graph.nodes:
        if node.op_type in KERNELS:
            yield ep.Claim((node,))
        else:
            yield ep.Refusal(node, "no-kernel", f"acme has no {node.op_type}")""",
)
RUN = Advice(
    "Program.run()",
    "Inputs are read only; every byte of every output is written; nothing is kept from one run to the next.",
    """def run(self, context, inputs):
    out = context.empty(self.value, shape, dtype)  # contents undefined: write all of it
    launch(self.code, inputs, out)
    return [out]""",
)
THREADS = Advice(
    "Program.run()",
    "Several threads run one program at once: keep what belongs to a run in local variables and on its stream.",
    """def run(self, context, inputs):
    scratch = context.empty(self.scratch, self.shape, self.dtype)  # not self.scratch_buffer
    return launch(self.code, inputs, scratch, context.stream)""",
)
ALLOCATOR = Advice(
    "Provider.allocator()",
    "A device with memory of its own supplies raw memory; arenas, reuse and statistics are the core's.",
    """class AcmeAllocator(ep.Allocator):
    alignment = 64

    def allocate(self, nbytes):
        return driver.malloc(max(nbytes, 1))  # MemoryError when there is no more

    def free(self, buffer):
        driver.free(buffer)

    def view(self, buffer, offset, shape, dtype):
        return AcmeTensor(buffer, offset, tuple(shape), dtype)

    def copy_in(self, array, tensor, stream):
        driver.write(tensor, array, stream)

    def copy_out(self, tensor, array, stream):
        driver.read(tensor, array, stream)""",
)
STREAM = Advice(
    "Provider.stream()",
    "A new queue for each run: work on one stays in order, and waiting for one waits for no other.",
    """class AcmeStream(ep.Stream):
    def __init__(self):
        self.queue = driver.queue()

    def record(self):
        return driver.event(self.queue)  # has wait()

    def synchronize(self):
        self.queue.finish()

    def close(self):
        self.queue.release()""",
)
ARTIFACTS = Advice(
    "Provider.save(), restore() and fingerprint()",
    "What is restored must be what was saved; the fingerprint names all that it depends on besides the model.",
    """def fingerprint(self, device):
    return f"{driver.version()} {driver.revision(device)}"

def save(self, program):
    return program.binary

def restore(self, saved, subgraph):
    return AcmeProgram.from_binary(saved, subgraph)""",
)
CAPTURE = Advice(
    "Program.capture()",
    "A replay for one set of shapes: new values are copied in, results are handed out as copies of their own.",
    """def capture(self, context, inputs):
    return AcmeReplay(driver.record(self, inputs))  # or None: not for these inputs""",
)
FIRST = Advice(
    LEVELS[1].write,
    "One node, claimed and computed right, is all that level 1 asks: look at what the case says of it.",
    LEVELS[1].example,
)
CLOSE = Advice(
    "Program.close() and Provider.close()",
    "What a session took is given back when it is closed: a thousand sessions leave nothing behind.",
    """def close(self):
    driver.release(self.code)""",
)

BY_CASE: tuple[tuple[str, Advice], ...] = (
    ("describe/*options*", OPTIONS),
    ("contract/answers_ill_typed_options", OPTIONS),
    ("describe/*", DEVICES),
    ("first/*", FIRST),
    ("contract/claims_*", CLAIM),
    ("contract/explains_*", CLAIM),
    ("contract/gives_back_*", CLOSE),
    ("contract/reports_what_it_runs", COMPILE),
    ("contract/*", RUN),
    ("threads/*", THREADS),
    ("streams/*", STREAM),
    ("device/*", ALLOCATOR),
    ("artifacts/*", ARTIFACTS),
    ("capture/gives_back_*", CLOSE),
    ("capture/*", CAPTURE),
    *(
        (f"{group}/*", COMPILE)
        for group in ("graphs", "patterns", "partitions", "pairs", "models", "quantised")
    ),
    ("*", KERNEL),
)
"""The first pattern that a failed case's name matches says what to look at."""

UNEXPECTED = Advice(
    "the expectations file",
    "The case passes although it was declared to fail: delete the declaration, so that it stays that way.",
    "",
)


def advise(entry: Entry) -> Advice:
    """The member at fault for a case that ended in an error."""
    if entry.state is State.UNEXPECTED_PASS:
        return UNEXPECTED
    advice = next(advice for pattern, advice in BY_CASE if fnmatchcase(entry.name, pattern))
    if advice is KERNEL and onnx.defs.has(entry.operator):
        return Advice(f'@kernel("{entry.operator}")', KERNEL.why, skeleton(entry.operator, (entry.dtype,)))
    return advice


# ---- for the whole run ----


def next_step(report: Report, certification: Certification) -> Advice | None:
    """The one thing to do next; None if everything that was run and applies is certified."""
    verdict = certification.next
    if verdict is None:
        return None
    own = [entry for entry in report.entries if entry.level == verdict.level.number]
    if verdict.status is Status.FAILING:
        found = [advise(entry) for entry in own if entry.state.is_error]
        (write, _), *_ = Counter(advice.write for advice in found).most_common(1)
        return next(advice for advice in found if advice.write == write)
    if verdict.level.number in (1, 2):
        wanted = next_operator(report.entries)
        if wanted is not None:
            return wanted
    level = LEVELS[verdict.level.number]
    return Advice(level.write, f"Level {level.number}, {level.title}: {verdict.reason}.", level.example)


def next_operator(entries: Sequence[Entry]) -> Advice | None:
    """The operator that brings the nearest operator set closer, with a kernel to fill in."""
    unfinished = [item for item in standings(entries) if item.missing and not item.failing and item.dtype]
    if not unfinished:
        return None
    nearest = min(unfinished, key=lambda item: (-bool(item.passed), len(item.missing)))
    operator = nearest.missing[0]
    others = len(nearest.missing) - 1
    more = f", and {others} more" if others else ""
    why = f"The nearest operator set is {nearest.label}; it lacks {operator}{more}."
    return Advice(f'@kernel("{operator}")', why, skeleton(operator, (nearest.dtype,)))


def skeleton(operator: str, dtypes: Sequence[str]) -> str:
    """A kernel for the newest version of an operator, its inputs and attributes as the schema has them."""
    schema = onnx.defs.get_schema(operator)
    types = ", ".join(f'"{dtype}"' for dtype in dtypes)
    variable = schema.inputs[0].type_str if schema.inputs else schema.outputs[0].type_str
    known = {constraint.type_param_str for constraint in schema.type_constraints}
    constraint = f', types={{"{variable}": {{{types}}}}}' if variable in known and any(dtypes) else ""
    parameters = [*map(_input, schema.inputs)]
    attributes = [_attribute(attribute) for _, attribute in sorted(schema.attributes.items())]
    name = operator.lower() + ("_" if keyword.iskeyword(operator.lower()) else "")
    variadic = any(parameter.startswith("*") for parameter in parameters)
    separator = ["*"] if attributes and not variadic else []
    given = ", ".join(parameter.partition("=")[0] for parameter in parameters)
    return "\n".join(
        [
            f'@ep.kernel("{operator}", since={schema.since_version}{constraint})',
            f"def {name}({', '.join([*parameters, *separator, *attributes])}):",
            f"    return acme.{name}({given})",
        ]
    )


def _input(formal: onnx.defs.OpSchema.FormalParameter) -> str:
    options = onnx.defs.OpSchema.FormalParameterOption
    name = formal.name if formal.name.isidentifier() else "x"
    if formal.option == options.Variadic:
        return f"*{name}"
    return f"{name}=None" if formal.option == options.Optional else name


def _attribute(attribute: onnx.defs.OpSchema.Attribute) -> str:
    if attribute.required:
        return attribute.name
    default = attribute.default_value
    value = onnx.helper.get_attribute_value(default) if default.type else None
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, float):
        value = float(f"{value:.7g}")
    return f"{attribute.name}={value!r}"
