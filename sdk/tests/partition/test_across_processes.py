"""The same in every process: nothing depends on the hashes of text or of objects."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import random, hashlib
from epkit.pipeline import Settings, stages
from epkit.testing.awkward import awkward, groups_by_chance
from epkit.testing.models import random_model
from epkit.testing.plugins import registry_of

digest = hashlib.sha256()
for seed in range(12):
    registry = registry_of(awkward("one", groups_by_chance(seed)), awkward("two", groups_by_chance(seed + 100)))
    for name, value in stages(random_model(random.Random(seed), 12, 2), Settings(("one", "two"), "cpu"), registry):
        if name in ("claim", "partition", "plan"):
            digest.update(str(value).encode())
print(digest.hexdigest())
"""


def test_the_same_plan_whatever_the_hash_seed() -> None:
    def digest(seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return done.stdout

    assert digest("1") == digest("2")
