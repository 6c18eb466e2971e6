"""The rows of the CUDA benchmark: models, batches and precisions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from . import cuda_models

PRECISIONS = ("fp16", "fp32", "tf32", "bf16")
BATCHES = (1, 8, 64)

Maker = Callable[[Path, str, int], Path]
PICTURES_AND_TEXT: dict[str, Maker] = {
    "ResNet-50": cuda_models.resnet,
    "BERT-base, 128 tokens": cuda_models.bert,
    "ViT-B/16": cuda_models.vit,
    "MobileNet-v2": cuda_models.mobilenet,
}


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: the model and its batch.
        precision: as the provider's option names it; of the elements where they have 16 bits.
        make: writes the model of an element type into a folder.
        peers: False where no peer has such weights.
    """

    name: str
    precision: str
    make: Callable[[Path, str], Path]
    peers: bool = True

    @property
    def kind(self) -> str:
        """The element type of the model."""
        return self.precision if self.precision in ("fp16", "bf16") else "fp32"

    @property
    def level(self) -> str:
        """Of the optimiser: strict float32 convolutions have their channels in front."""
        return "extended" if self.precision == "fp32" else "all"


def cases() -> Iterator[Case]:
    """The decoder first, then by precision, model and batch."""
    yield Case("Llama 1B, decode after 512", "fp16", lambda d, k: cuda_models.llama(d, k, 1, 512))
    yield Case("Llama 1B, prefill 512", "fp16", lambda d, k: cuda_models.llama(d, k, 512, 0))
    for name, length, past in (("decode after 512", 1, 512), ("prefill 512", 512, 0)):
        yield Case(
            f"Llama 1B int4, {name}",
            "fp16",
            lambda d, k, length=length, past=past: cuda_models.llama(d, k, length, past, bits=4),  # type: ignore[misc]
            peers=False,
        )
    for precision in PRECISIONS:
        for batch in BATCHES:
            for name, make in PICTURES_AND_TEXT.items():
                yield Case(
                    f"{name}, batch {batch}",
                    precision,
                    lambda d, k, make=make, batch=batch: make(d, k, batch),  # type: ignore[misc]
                )
