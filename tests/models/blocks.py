"""Parts of transformers as people write them in torch, without a library of models: attention, rotation, gates."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from .exported import Case

WIDTH, HEADS = 32, 4


class RootMeanSquare(nn.Module):
    """x / sqrt(mean x² + ε) · weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


class Decoder(nn.Module):
    """A layer of a decoder: rotated halves, two heads of keys for four of queries, a gated feed-forward part."""

    def __init__(self, shared: int = 2, how: str = "expand") -> None:
        super().__init__()
        size, self.shared, self.how = WIDTH // HEADS, shared, how
        self.q, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.k, self.v = (nn.Linear(WIDTH, shared * size, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(WIDTH, 2 * WIDTH, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * WIDTH, WIDTH, bias=False)
        self.before, self.between = RootMeanSquare(), RootMeanSquare()
        self.register_buffer("steps", 10000.0 ** -(torch.arange(0, size, 2).float() / size))

    def rotated(self, x: Tensor, angles: Tensor) -> Tensor:
        low, high = x.chunk(2, -1)
        return x * angles.cos()[None, None] + torch.cat((-high, low), -1) * angles.sin()[None, None]

    def repeated(self, x: Tensor) -> Tensor:
        copies = HEADS // self.shared
        if self.how == "interleave":
            return x.repeat_interleave(copies, 1)
        b, h, s, d = x.shape
        return x[:, :, None].expand(b, h, copies, s, d).reshape(b, h * copies, s, d)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        y = self.before(x)
        q, k, v = (
            part(y).view(batch, length, -1, WIDTH // HEADS).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        half = torch.outer(torch.arange(length).float(), self.steps)
        angles = torch.cat((half, half), -1)
        q, k, v = self.rotated(q, angles), self.repeated(self.rotated(k, angles)), self.repeated(v)
        if self.how == "eager":
            masked = torch.full((length, length), -math.inf).triu(1)
            scores = q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS) + masked
            mixed = torch.softmax(scores, -1) @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(mixed.transpose(1, 2).reshape(batch, length, -1))
        y = self.between(x)
        return x + self.down(functional.silu(self.gate(y)) * self.up(y))


class Encoder(nn.Module):
    """torch's own layer: attention to itself and to something else, twice normalised after the sum."""

    def __init__(self) -> None:
        super().__init__()
        torch.backends.mha.set_fastpath_enabled(False)  # the tracing exporter knows nothing of it
        self.layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 64, 0.0, "gelu", batch_first=True)
        for parameter in self.layer.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return self.layer(x, memory)


class Weighed(nn.Module):
    """torch's attention whose weights are a result, the mean over the heads."""

    def __init__(self) -> None:
        super().__init__()
        torch.backends.mha.set_fastpath_enabled(False)
        self.layer = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)

    def forward(self, x: Tensor, drop: Tensor) -> tuple[Tensor, Tensor]:
        mixed, weights = self.layer(x, x, x, key_padding_mask=drop, need_weights=True)
        return mixed, weights


class Placed(nn.Module):
    """Rotated halves, by places that are given for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", 10000.0 ** -(torch.arange(0, 8, 2).float() / 8))

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        half = places[..., None].float() * self.steps
        angles = torch.cat((half, half), -1)
        low, high = x.chunk(2, -1)
        return x * angles.cos()[:, None] + torch.cat((-high, low), -1) * angles.sin()[:, None]


class Trained(nn.Module):
    """Trained for codes of 8 bits: each value is rounded to its code, in the same steps where numbers only move."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.rounded(self.wide(self.rounded(x)).relu())
        y = self.rounded(functional.pixel_unshuffle(self.rounded(functional.pixel_shuffle(y, 2)), 2))
        y = self.rounded(self.rounded(y[:, :, 1:]))
        kept = (y[:, :1] > 0.5).int().float()
        z = self.rounded(y.mean((2, 3), keepdim=True))
        return self.narrow(y) * kept + self.rounded(z.expand(-1, -1, 3, 4))[:, :4, :1, :1]

    def rounded(self, x: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(x, 0.02, 0, 0, 255)


class Masked(nn.Module):
    """Attention with a mask that says what takes part."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=keep)


class Einstein(nn.Module):
    """Attention in Einstein's notation, with a mask that is filled in."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, keep: Tensor) -> Tensor:
        scores = torch.einsum("bhid,bhjd->bhij", q, k) * 0.35
        weights = scores.masked_fill(~keep, -math.inf).softmax(-1)
        return torch.einsum("bhij,bhjd->bihd", weights, v)


def _sequence(batch: int, length: int) -> dict[str, Tensor]:
    torch.manual_seed(length)
    return {"x": torch.randn(batch, length, WIDTH)}


def _two(batch: int, length: int) -> dict[str, Tensor]:
    return {**_sequence(batch, length), "memory": torch.randn(batch, 5, WIDTH)}


def _heads(batch: int, length: int) -> dict[str, Tensor]:
    torch.manual_seed(length)
    given = {name: torch.randn(batch, HEADS, length, 8) for name in "qkv"}
    keep = torch.rand(batch, 1, length, length) > 0.3
    keep[..., 0] = True
    return {**given, "keep": keep}


def _padded(batch: int, length: int) -> dict[str, Tensor]:
    drop = torch.zeros(batch, length, dtype=torch.bool)
    drop[-1, length // 2 :] = True
    return {**_sequence(batch, length), "drop": drop}


def _placed(batch: int, length: int) -> dict[str, Tensor]:
    torch.manual_seed(length)
    places = torch.arange(length)[None] + torch.arange(batch)[:, None]
    return {"x": torch.randn(batch, HEADS, length, 8), "places": places}


def _image(batch: int, size: int) -> dict[str, Tensor]:
    torch.manual_seed(size)
    return {"x": torch.rand(batch, 3, size + 1, size)}


_OPEN = {0: "batch", 1: "length"}
BLOCKS: dict[str, Case] = {
    "decoder": Case(Decoder, _sequence, {"x": _OPEN}),
    "decoder-interleave": Case(lambda: Decoder(how="interleave"), _sequence, {"x": _OPEN}),
    "decoder-eager": Case(lambda: Decoder(how="eager"), _sequence, {"x": _OPEN}),
    "encoder": Case(Encoder, _two, {"x": {0: "batch"}, "memory": {0: "batch"}}, ((2, 7), (3, 7))),
    "weighed": Case(Weighed, _padded, {"x": {0: "batch"}, "drop": {0: "batch"}}, ((2, 7), (3, 7))),
    "placed": Case(Placed, _placed, {"x": {0: "batch", 2: "length"}, "places": _OPEN}, traced=True),
    "decoder-fixed": Case(lambda: Decoder(how="eager"), _sequence, {}, ((2, 7),), traced=True),
    "trained": Case(Trained, _image, {"x": {0: "batch"}}, ((2, 6), (3, 6)), traced=True),
    "decoder-23": Case(Decoder, _sequence, {"x": _OPEN}, opset=23),
    "einstein": Case(
        Einstein,
        _heads,
        {name: {0: "batch", 2: "length"} for name in "qkv"}
        | {"keep": {0: "batch", 2: "length", 3: "length"}},
    ),
    "masked": Case(
        Masked,
        _heads,
        {name: {0: "batch", 2: "length"} for name in "qkv"}
        | {"keep": {0: "batch", 2: "length", 3: "length"}},
    ),
}
