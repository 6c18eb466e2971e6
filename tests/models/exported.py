"""Models made by both exporters of torch, tiny and with random weights.

Each case has a module, its inputs in two sizes, and which dimensions are dynamic.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from .inputs import Feeds

Axes = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True)
class Case:
    """A torch module with examples of its inputs, by name, and the dynamic dimensions of each.

    The opset is that of the exporter of torch.export, by default its own. Of a small part only one of the two
    exporters may be of interest: ``traced`` says whether that is the one that traces.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], dict[str, Tensor]]
    axes: Axes
    sizes: tuple[tuple[int, int], ...] = ((2, 7), (3, 12))
    opset: int | None = None
    traced: bool | None = None

    @property
    def exporters(self) -> tuple[bool, ...]:
        """By which to export it: False is the one that traces, True that of torch.export."""
        if self.opset is not None:
            return (True,)
        return (False, True) if self.traced is None else (not self.traced,)

    def feeds(self) -> list[Feeds]:
        """The inputs in all sizes, as arrays."""
        return [{name: x.numpy() for name, x in self.inputs(*size).items()} for size in self.sizes]


def export(case: Case, *, dynamo: bool) -> bytes:
    """The module as an ONNX model, by the exporter of torch.export or by the one that traces."""
    torch.manual_seed(0)
    module, example = case.build().eval(), case.inputs(*case.sizes[0])
    axes = {name: dict(case.axes.get(name, {})) for name in example}
    target = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # both exporters speak of their own future
        if dynamo:
            shapes = {name: dict.fromkeys(dims, torch.export.Dim.DYNAMIC) for name, dims in axes.items()}
            program = torch.onnx.export(
                module,
                (),
                kwargs=example,
                dynamo=True,
                dynamic_shapes=shapes,
                verbose=False,
                opset_version=case.opset,
            )
            assert program is not None
            program.save(target)
        else:
            torch.onnx.export(
                module,
                tuple(example.values()),
                target,
                dynamo=False,
                input_names=list(example),
                dynamic_axes=axes,
                opset_version=17,
            )
    return target.getvalue()


# ---- convolutional networks ----


class Residual(nn.Module):
    """Two convolutions with normalisation, and what came in added to what goes out."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(),
            nn.Conv2d(outer, outer, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outer),
        )
        self.skip = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.path(x) + self.skip(x))


class Inverted(nn.Module):
    """MobileNet's block: widen, filter each channel, weigh the channels, narrow."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        wide = 4 * channels
        self.widen = nn.Sequential(nn.Conv2d(channels, wide, 1), nn.BatchNorm2d(wide), nn.Hardswish())
        self.filter = nn.Sequential(
            nn.Conv2d(wide, wide, 5, stride, 2, groups=wide), nn.BatchNorm2d(wide), nn.ReLU6()
        )
        self.weigh = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(wide, wide, 1), nn.Hardsigmoid())
        self.narrow = nn.Conv2d(wide, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.filter(self.widen(x))
        return x + self.narrow(y * self.weigh(y))


class Classifier(nn.Module):
    """Layers one after the other, then a pooled linear layer; normalised as after training."""

    def __init__(self, *layers: nn.Module, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean = torch.randn(layer.num_features) / 3
                layer.running_var = torch.rand(layer.num_features) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class UNet(nn.Module):
    """Down and up again, with interpolation and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.up, self.last = nn.ConvTranspose2d(8, 4, 4, 2, 1), nn.Conv2d(7, 2, 1)
        self.norm = nn.GroupNorm(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.nn.functional.silu(self.norm(self.down(x)))
        y = torch.nn.functional.gelu(self.middle(y))
        both = torch.cat((self.up(y), x), 1)
        half = nn.functional.interpolate(self.last(both), scale_factor=0.5, mode="bilinear")
        return torch.softmax(half, 1)


class Recurrent(nn.Module):
    """A GRU in both directions, then an LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(5, 8, bidirectional=True, batch_first=True)
        self.lstm = nn.LSTM(16, 6, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.gru(x)
        z, (h, _) = self.lstm(y)
        return torch.cat((z, h[-1:].transpose(0, 1)), 1)


def _resnet() -> nn.Module:
    stem = (nn.Conv2d(3, 8, 7, 2, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return Classifier(*stem, Residual(8, 8, 1), Residual(8, 16, 2), width=16)


def _mobilenet() -> nn.Module:
    return Classifier(nn.Conv2d(3, 8, 3, 2, 1), Inverted(8), Inverted(8), width=8)


def _image(batch: int, size: int) -> dict[str, Tensor]:
    torch.manual_seed(size)
    return {"x": torch.randn(batch, 3, 4 * size, 32)}


def _sequence(batch: int, length: int) -> dict[str, Tensor]:
    torch.manual_seed(length)
    return {"x": torch.randn(batch, length, 5)}


# ---- transformers ----

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}


class Chosen(nn.Module):
    """A transformers model that takes the given inputs by name and gives one tensor of its result."""

    def __init__(self, model: Any, result: str, **options: Any) -> None:
        super().__init__()
        self.model, self.result, self.options = model, result, options


class Encoder(Chosen):
    """Token ids and mask in."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, **self.options)
        return found[self.result]


class Vision(Chosen):
    """Pixels or audio features in."""

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x, **self.options)[self.result]


class Cached(nn.Module):
    """A decoder with the keys and values of the tokens before as inputs and outputs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, keys: Tensor, values: Tensor) -> Any:
        cache = transformers.DynamicCache()
        for layer in range(2):
            cache.update(keys[layer], values[layer], layer)
        found = self.model(
            input_ids=input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=True
        )
        layers = found.past_key_values.layers
        return found.logits, torch.stack([x.keys for x in layers]), torch.stack([x.values for x in layers])


def _bert() -> nn.Module:
    return Encoder(_eager(transformers.BertConfig(vocab_size=100, **_SMALL)), "last_hidden_state")


def _gpt2_config() -> Any:
    return transformers.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=64)


def _llama_config() -> Any:
    return transformers.LlamaConfig(
        vocab_size=100, num_key_value_heads=2, max_position_embeddings=64, **_SMALL
    )


def _qwen_config() -> Any:
    return transformers.Qwen3Config(
        vocab_size=100, num_key_value_heads=1, head_dim=8, max_position_embeddings=64, **_SMALL
    )


def _eager(config: Any, kind: Any = transformers.AutoModel) -> Any:
    return kind.from_config(config, attn_implementation="eager")


def _decoder(config: Callable[[], Any]) -> Callable[[], nn.Module]:
    return lambda: Encoder(_eager(config(), transformers.AutoModelForCausalLM), "logits", use_cache=False)


def _with_cache(config: Callable[[], Any]) -> Callable[[], nn.Module]:
    return lambda: Cached(_eager(config(), transformers.AutoModelForCausalLM))


def _vit() -> nn.Module:
    return Vision(_eager(transformers.ViTConfig(image_size=32, patch_size=8, **_SMALL)), "last_hidden_state")


def _whisper() -> nn.Module:
    config = transformers.WhisperConfig(
        d_model=32, encoder_layers=2, encoder_attention_heads=4, encoder_ffn_dim=64, num_mel_bins=8,
        decoder_layers=1, decoder_attention_heads=4, decoder_ffn_dim=64, max_source_positions=30,
        vocab_size=100, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    model = transformers.WhisperModel(config)
    return Vision(model.encoder, "last_hidden_state")


def _tokens(batch: int, length: int) -> dict[str, Tensor]:
    torch.manual_seed(length)
    mask = torch.ones(batch, length, dtype=torch.int64)
    mask[-1, length // 2 :] = 0
    return {"input_ids": torch.randint(0, 100, (batch, length)), "attention_mask": mask}


def _past(heads: int) -> Callable[[int, int], dict[str, Tensor]]:
    def inputs(batch: int, past: int) -> dict[str, Tensor]:
        torch.manual_seed(past)
        ids, shape = torch.randint(0, 100, (batch, 2)), (2, batch, heads, past, 8)
        mask = torch.ones(batch, past + 2, dtype=torch.int64)
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "keys": torch.randn(shape),
            "values": torch.randn(shape),
        }

    return inputs


def _square(batch: int, _: int) -> dict[str, Tensor]:
    torch.manual_seed(batch)
    return {"x": torch.randn(batch, 3, 32, 32)}


def _mel(batch: int, _: int) -> dict[str, Tensor]:
    torch.manual_seed(batch)
    return {"x": torch.randn(batch, 8, 60)}


_TEXT = {"input_ids": {0: "batch", 1: "length"}, "attention_mask": {0: "batch", 1: "length"}}
_CACHE = {
    "input_ids": {0: "batch"},
    "attention_mask": {0: "batch", 1: "total"},
    "keys": {1: "batch", 3: "past"},
    "values": {1: "batch", 3: "past"},
}
_BATCH = {"x": {0: "batch"}}

CASES: dict[str, Case] = {
    "resnet": Case(_resnet, _image, {"x": {0: "batch", 2: "height"}}, ((2, 8), (3, 11))),
    "mobilenet": Case(_mobilenet, _image, {"x": {0: "batch", 2: "height"}}, ((2, 8), (3, 11))),
    "unet": Case(UNet, _image, {"x": {0: "batch", 2: "height"}}, ((2, 8), (3, 12))),
    "recurrent": Case(Recurrent, _sequence, _BATCH, ((2, 7), (3, 7))),
    "bert": Case(_bert, _tokens, _TEXT),
    "gpt2": Case(_decoder(_gpt2_config), _tokens, _TEXT),
    "gpt2-cache": Case(_with_cache(_gpt2_config), _past(4), _CACHE),
    "llama": Case(_decoder(_llama_config), _tokens, _TEXT),
    "llama-cache": Case(_with_cache(_llama_config), _past(2), _CACHE),
    "qwen-cache": Case(_with_cache(_qwen_config), _past(1), _CACHE),
    "vit": Case(_vit, _square, _BATCH),
    "whisper": Case(_whisper, _mel, _BATCH),
}
