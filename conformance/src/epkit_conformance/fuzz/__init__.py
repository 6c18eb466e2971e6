"""Looking for faults without end: operators, types, shapes, attributes and small graphs at random.

    epkit conformance fuzz acme --seconds 600 --out finds

| module   | what is in it                                                                        |
|----------|--------------------------------------------------------------------------------------|
| `trial`  | a model with inputs, and what must come out                                          |
| `nodes`  | strategies for one node of each kind of operator                                     |
| `graphs` | a strategy for small graphs                                                          |
| `judge`  | what became of a trial on a provider, in a worker process                            |
| `search` | the loop: Hypothesis proposes, the judge decides, finds are made small               |
| `finds`  | finds as files: the model, its inputs, what was expected and found, how to reproduce |
"""

from __future__ import annotations

from .command import main
from .search import search

__all__ = ["main", "search"]
