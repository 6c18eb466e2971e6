"""Real models from PyPI packages, compared with onnxruntime. ``python -m tests.models`` prints the table."""
