# Everything runs in .venv, created on first use with the versions of constraints.txt.
#   make demo       the full pipeline on a simulated population; writes demo/report.html
#   make test       lint, types, import contracts and tests, without those marked nightly
#   make test-all   the same with nightly tests: compilers, ONNX, speed scripts, long properties, documentation
#   make lint       lint, types and import contracts alone
#   make clean      remove .venv and the demo

PYTHON ?= python3
BIN := .venv/bin
# Modules are compiled when they are first imported: compiling all of them takes longer than installing them.
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALL := $(PIP) install --no-compile --constraint constraints.txt --editable
# At most two processes, since each holds the libraries in memory and some tests start others. One thread each, so that
# they do not compete.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 2 --dist worksteal

.PHONY: demo test test-all lint clean

demo: .venv/all
	$(BIN)/mutbert demo --output demo --force

test: lint
	$(PYTEST) -m "not nightly"

test-all: lint .venv/browser
	HYPOTHESIS_PROFILE=long $(PYTEST)

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv demo

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11; use a newer one: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv

.venv/all: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing into .venv; this takes a minute or two the first time" >&2
	$(INSTALL) '.[all]'
	@touch $@

.venv/browser: .venv/dev
	$(INSTALL) '.[browser]'
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing into .venv; this takes a minute or two the first time" >&2
	$(INSTALL) '.[dev]'
	@touch .venv/all $@
