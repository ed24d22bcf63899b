# Two commands matter: `make demo` and `make test`. Both set up .venv by themselves, once: `demo` with what running needs,
# `test` with what testing needs as well.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_TO_TEST := $(VENV)/.ready-to-test
# pip compiles one file after the other on one core; `compileall` takes all cores, and leaves out what is not imported here.
# Some files are templates, no Python.
define set-up
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11. Name a newer one: make PYTHON=python3.11"; exit 2; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable $(1)
	@$(BIN)/python -m compileall -q -j 0 -x '/(tests?|_inductor|testing|_vendor)/' $(VENV)/lib >/dev/null || true
endef

.PHONY: install demo test lint types pytest soak nightly gpu clean

install: $(READY)
	@echo "Ready. Next: make demo, make test, or $(BIN)/deploypipe --help"

$(READY): pyproject.toml constraints.txt
	$(call set-up,.)
	@touch $@

$(READY_TO_TEST): pyproject.toml constraints.txt
	$(call set-up,'.[dev]')
	@touch $(READY) $@

demo: $(READY)
	$(BIN)/deploypipe run

test: lint types pytest

lint: $(READY_TO_TEST)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY_TO_TEST)
	$(BIN)/mypy

# tests/conftest.py says which tests come first and which stay together. Three at once on two cores, because they wait for
# servers.
pytest: $(READY_TO_TEST)
	$(BIN)/python -m pytest --numprocesses 3 --dist loadgroup --no-loadscope-reorder

# The long ones: everything marked `soak`.
soak: $(READY_TO_TEST)
	$(BIN)/python -m pytest -m soak

# The long forms of tests: more programs, mutants, formats and networks, and the programs that measure.
nightly: $(READY_TO_TEST)
	$(BIN)/python -m pytest -m nightly --numprocesses 2 --dist load

# What a GPU matters for. It installs nothing, for a GPU's torch is the machine's own: .venv where it is ready, else
# $(PYTHON) as it is, and always the interpreter that is named, as in make gpu PYTHON=python3.12 ARGS='--only time-99'.
GPU_PYTHON = $(if $(filter file,$(origin PYTHON)),$(if $(wildcard $(READY)),$(BIN)/python,$(PYTHON)),$(PYTHON))
gpu:
	$(GPU_PYTHON) benchmarks/gpu $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
