"""Toys for tests of the core and of plugins: nothing here runs in an application.

| module    | what is in it                                                                            |
|-----------|------------------------------------------------------------------------------------------|
| `models`  | small models from text, and random ones with diamonds, If, Loop and Scan                  |
| `oracle`  | what a model should compute, by ``onnx.reference``                                       |
| `awkward` | providers that claim awkward sets of nodes                                               |
| `memory`  | a device memory that notices misuse, and poisons what nobody has written                 |
| `stream`  | a queue of work that runs late, on purpose, and notices races                            |
| `device`  | a provider on such a memory and stream                                                   |
| `reference` | a provider that compiles by handing ONNX models to ``onnx.reference``                  |
| `broken`  | a zoo of plugins, each with one fault                                                    |
| `plugins` | registries over plugins that are not installed                                           |
"""

from __future__ import annotations
