"""A convolution as its kernels see it."""

from __future__ import annotations

from dataclasses import dataclass

from epkit.kernels._window import Window

from ..memory import Tensor
from .gemm_source import End


@dataclass(frozen=True)
class Task:
    """out = end(Conv(x, w, bias)).

    Attributes:
        x, w, bias: the input (images, channels, ...), the weights (outputs, channels of a group, ...), a number for
            each output, if any.
        out: the result.
        view: what each output reads.
        group: of channels.
        end: what is done before a number is stored, if anything.
    """

    x: Tensor
    w: Tensor
    bias: Tensor | None
    out: Tensor
    view: Window
    group: int
    end: End | None

    @property
    def residual(self) -> Tensor | None:
        """Added before the activation."""
        return None if self.end is None else self.end.residual
