"""OpenVINO in a process, and an environment, of its own: it computes when it is told to, and says how long it took.

``PYTHON benchmarks/openvino_child.py MODEL THREADS HINT``; needs openvino and numpy only. Requests are pickles on
the standard input: ("feeds", [feeds, ...]), ("run", index) and ("time", repeat). Answers are pickles on the standard
output.
"""

from __future__ import annotations

import pickle
import sys
import time
from typing import Any


def main() -> None:
    """Serve until the input ends."""
    import openvino

    model, threads, hint = sys.argv[1:]
    options = {"INFERENCE_NUM_THREADS": int(threads), "INFERENCE_PRECISION_HINT": hint}
    start = time.perf_counter()
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    answer: Any = time.perf_counter() - start
    feeds: list[dict[str, Any]] = []
    while True:
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        try:
            what, argument = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        if what == "feeds":
            feeds, answer = argument, None
        elif what == "run":
            found = request.infer(feeds[argument])
            answer = {name: found[port] for port in found for name in port.names}
        else:
            start = time.perf_counter()
            for _ in range(argument):
                for feed in feeds:
                    request.infer(feed)
            answer = time.perf_counter() - start


if __name__ == "__main__":
    main()
