"""epkit: run ONNX models on any hardware that has a plugin. The door for applications.

    import epkit
    session = epkit.load("model.onnx", providers=["acme", "cpu"])
    outputs = session(x=array)
    print(session.placement)

Importing this module imports nothing heavy; the rest follows when a model is loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import EpkitError
from .late import keep_onnx_light as _keep_onnx_light

if TYPE_CHECKING:
    from .api import load, operator
    from .backend.registry import ProviderState
    from .compat.onnxruntime import InferenceSession, SessionOptions
    from .discovery import providers, register
    from .model.limits import Limits
    from .runtime.options import Cancellation, RunOptions
    from .runtime.profile import Profile
    from .runtime.session import Session

_keep_onnx_light()

__version__ = "0.1.0"

__all__ = [
    "Cancellation",
    "EpkitError",
    "InferenceSession",
    "Limits",
    "Profile",
    "ProviderState",
    "RunOptions",
    "Session",
    "SessionOptions",
    "load",
    "operator",
    "providers",
    "register",
]

_HOMES = {
    "Cancellation": ".runtime.options",
    "InferenceSession": ".compat.onnxruntime",
    "Limits": ".model.limits",
    "Profile": ".runtime.profile",
    "ProviderState": ".backend.registry",
    "RunOptions": ".runtime.options",
    "Session": ".runtime.session",
    "SessionOptions": ".compat.onnxruntime",
    "load": ".api",
    "operator": ".api",
    "providers": ".discovery",
    "register": ".discovery",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'epkit' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
