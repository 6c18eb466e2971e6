"""Loading a model stage by stage, with progress."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from pathlib import Path

from ..backend.registry import default
from ..compiling import Compiled
from ..pipeline import STAGES, Stage, stages
from ..runtime.session import Session
from ..settings import Settings
from ..trace import Recorder
from . import _render


def watch(model: Path, settings: Settings, recorder: Recorder | None = None) -> Generator[tuple[str, Stage]]:
    """The pipeline's stages one after the other; stderr shows which one is at work."""
    with _render.progress() as bar:
        task = bar.add_task(f"{STAGES[0]} {model.name}", total=len(STAGES))
        for done, (name, value) in enumerate(stages(model, settings, default, recorder), 1):
            bar.update(task, completed=done, description=f"{STAGES[min(done, len(STAGES) - 1)]} {model.name}")
            yield name, value


def stop_after(model: Path, settings: Settings, stage: str) -> Stage:
    """What one stage gives; later ones are not run."""
    with closing(watch(model, settings)) as steps:
        return next(value for name, value in steps if name == stage)


def open_session(model: Path, settings: Settings) -> Session:
    """A session, and its warnings on stderr."""
    recorder = Recorder()
    *_, (_, compiled) = watch(model, settings, recorder)
    assert isinstance(compiled, Compiled)
    _render.warn((*default.warnings, *compiled.warnings))
    return Session(compiled, default, recorder)
