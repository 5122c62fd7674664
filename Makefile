# On a fresh machine: `make quickstart`, `make test`, `make test-all`. They need Python 3.10+, make and git only.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# uv brings PyTorch in a fraction of pip's time, and does not know of an index that only pip is told of
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV = $(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python
INSTALL = ($(PIP) uv && $(UV) -e ".[$(1)]") || $(PIP) -e ".[$(1)]"
# many tests start processes of their own
TESTS_AT_A_TIME ?= 2
# the oldest versions that pyproject.toml allows; uv resolves to them, pip cannot
OLDEST_PYTHON ?= $(shell python3.10 -c '' 2> /dev/null && echo python3.10 || echo $(PYTHON))
OLDEST = $(VENV)-oldest
OLDEST_TESTS ?= tests/test_callback.py tests/test_callback_endings.py tests/test_host.py tests/cli tests/study/test_results.py

.PHONY: quickstart test test-all test-oldest check chaos bench pictures format clean

quickstart: $(VENV)/.examples
	$(BIN)/python examples/quickstart.py

test: $(VENV)/.test
	$(BIN)/pytest -n $(TESTS_AT_A_TIME) --dist worksteal -m "not slow" $(PYTEST)

test-all: $(VENV)/.test
	$(BIN)/pytest -n $(TESTS_AT_A_TIME) --dist worksteal $(PYTEST)

test-oldest: $(OLDEST)/.test
	$(OLDEST)/bin/pytest -n $(TESTS_AT_A_TIME) --dist worksteal -m "not slow" $(OLDEST_TESTS) $(PYTEST)

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

chaos: $(VENV)/.test
	$(BIN)/python tests/chaos.py --kills 40

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/parallel.py
	$(BIN)/python benchmarks/durability.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/live.py
	$(BIN)/python benchmarks/trackers.py
	$(BIN)/python benchmarks/command_line.py
	$(BIN)/python benchmarks/gpu_packing.py

pictures: $(VENV)/.test
	$(BIN)/python docs/pictures.py

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(OLDEST) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "LightningTune needs Python 3.10 or newer.")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.examples: pyproject.toml | $(BIN)/python
	$(call INSTALL,examples)
	touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(call INSTALL,dev)
	touch $@ $(VENV)/.examples

$(OLDEST)/.test: pyproject.toml | $(VENV)/.test
	$(PIP) uv
	$(OLDEST_PYTHON) -m venv $(OLDEST)
	$(BIN)/python -m uv pip install --quiet --compile-bytecode --resolution lowest-direct \
	    --python $(OLDEST)/bin/python -e ".[test]"
	touch $@

$(VENV)/.bench: pyproject.toml | $(BIN)/python
	$(call INSTALL,bench)
	touch $@ $(VENV)/.examples $(VENV)/.test
