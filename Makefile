# Two commands do everything on a machine that has Python 3.11+ and make:
#   make demo    run a real model through two providers
#   make test    run the tests
# Both make their own environment in .venv.

PYTHON ?= python3
BIN := .venv/bin
PLUGINS := plugins/cpu plugins/contrib plugins/npu_sim plugins/opencl plugins/cuda
PACKAGES := sdk $(PLUGINS) conformance examples/epkit-acme
INSTALLED := .venv/.packages
TOOLS := .venv/.tools

.PHONY: demo test lint types conformance docs proof wheels clean

demo: $(INSTALLED)
	$(BIN)/python demo/demo.py

test: $(TOOLS)
	$(BIN)/python -m pytest -n 2 -m "not slow"

lint: $(TOOLS)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(TOOLS)
	$(BIN)/mypy

conformance: $(TOOLS)
	$(BIN)/epkit conformance cpu --jobs 2 --report build/conformance

proof: $(TOOLS)
	$(BIN)/python -m tests.backend

wheels: $(TOOLS)
	$(BIN)/python tests/packaging/check_wheels.py

clean:
	rm -rf .venv .tox .mypy_cache .ruff_cache .pytest_cache

.venv/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "epkit needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

$(INSTALLED): .venv/bin/python $(PACKAGES:%=%/pyproject.toml)
	EPKIT_CPU_BUILD_ISA=native $(BIN)/python -m pip install --quiet $(PACKAGES:%=-e %)
	@touch $@

$(TOOLS): $(INSTALLED) pyproject.toml
	$(BIN)/python -m pip install --quiet --group dev
	$(BIN)/python plugins/cpu/native/build.py
	@touch $@
