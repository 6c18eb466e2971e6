"""The exception tree. Every error says what happened, where, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Where:
    """The place of an error; empty fields are unknown or do not apply.

    ``parts`` are the model's nodes that a fused one stands for.
    """

    stage: str = ""
    model: str = ""
    node: str = ""
    parts: str = ""
    value: str = ""
    provider: str = ""
    partition: str = ""
    file: str = ""

    def __str__(self) -> str:
        return ", ".join(f"{f.name} {getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name))


class EpkitError(Exception):
    """Root of everything that epkit raises on purpose.

    Args:
        what: what happened, one sentence.
        where: the place, as far as it is known.
        remedy: what the reader can do next.
    """

    def __init__(self, what: str, *, where: Where | None = None, remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where or Where()
        self.remedy = remedy

    def at(self, **place: str) -> EpkitError:
        """Fill in parts of the place that were not known where the error was raised; returns self."""
        unknown = {key: value for key, value in place.items() if not getattr(self.where, key)}
        self.where = replace(self.where, **unknown)
        return self

    def __str__(self) -> str:
        lines = [self.what]
        if str(self.where):
            lines.append(f"  where: {self.where}")
        if self.remedy:
            lines.append(f"  try:   {self.remedy}")
        return "\n".join(lines)


class ModelError(EpkitError):
    """The model cannot be used."""


class NotOnnxError(ModelError):
    """The input is not an ONNX model, or a damaged one."""


class InvalidModelError(ModelError):
    """The model breaks a rule of the ONNX standard."""


class UnsafeModelError(ModelError):
    """The model asks for something that an untrusted file must not: a path outside its folder, a huge
    tensor.
    """


class ExternalDataError(ModelError):
    """External data are missing, too short or unreadable."""


class UnknownOperatorError(ModelError):
    """An operator that neither the standard, nor the model's functions, nor an installed package defines."""


class UnsupportedOpsetError(ModelError):
    """The model is written against a newer opset or IR version than is known here."""


class InputError(EpkitError):
    """The caller's inputs do not fit the model: name, dtype, rank or dimension."""


class OptionError(EpkitError):
    """An unknown or ill-typed option, for a provider, a session or a run."""


class ProviderError(EpkitError):
    """A provider cannot be used."""


class UnknownProviderError(ProviderError):
    """No installed plugin has this name."""


class UnavailableProviderError(ProviderError):
    """The plugin is installed, its hardware or driver is absent."""


class IncompatibleProviderError(ProviderError):
    """The plugin supports other versions of the contract than this epkit."""


class BrokenProviderError(ProviderError):
    """The plugin raised, or broke the contract."""


class PlacementError(EpkitError):
    """Some node has no provider, or falling back was forbidden."""


class ArtifactError(ProviderError):
    """A saved program is damaged, or was made for something else."""


class CompileError(ProviderError):
    """A provider failed to compile a partition that it had claimed."""


class RunError(EpkitError):
    """A partition or node failed while running."""


class CancelledError(RunError):
    """The run was cancelled by its caller."""


class DeviceMemoryError(RunError):
    """A device has too little memory."""
