# Everything runs in .venv, created on first use with the versions of constraints.txt.
#   make demo       the full pipeline on a simulated population; writes demo/report.html
#   make test       lint, types, import contracts and tests, without those marked nightly
#   make test-all   the same with nightly tests: compilers, ONNX, speed scripts, long properties, documentation
#   make dist       wheel and sdist; the wheel is tried in an empty environment
#   make docs       the site, site/index.html; a warning is an error
#   make lint       lint, types and import contracts alone
#   make clean      remove .venv, the demo, the site, wheel and sdist

PYTHON ?= python3
BIN := .venv/bin
# Modules are compiled when they are first imported: compiling all of them takes longer than installing them.
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALL := $(PIP) install --no-compile --constraint constraints.txt --editable
# At most two processes, since each holds the libraries in memory and some tests start others. One thread each, so that
# they do not compete.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 2 --dist worksteal

.PHONY: demo test test-all docs dist lint clean

demo: .venv/all
	$(BIN)/mutbert demo --output demo --force

test: lint
	$(PYTEST) -m "not nightly"

test-all: lint .venv/nightly
	HYPOTHESIS_PROFILE=long $(PYTEST)

# The tests are those of the sdist, without its src: what they import is the wheel's.
dist: .venv/bin/python
	$(PIP) install --constraint constraints.txt build twine
	rm -rf dist build/wheel
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv build/wheel
	build/wheel/bin/pip install --quiet --constraint constraints.txt "$$(echo dist/*.whl)[all]" hypothesis pytest
	mkdir build/wheel/sdist
	tar -xzf dist/*.tar.gz -C build/wheel/sdist --strip-components 1 --exclude '*/src'
	cd build/wheel/sdist && PYTHONPATH= ../bin/mutbert demo
	cd build/wheel/sdist && PYTHONPATH= ../bin/python -m pytest tests/end_to_end/test_readme.py \
	  tests/end_to_end/test_tutorial.py tests/end_to_end/test_howto.py -k 'not (cluster or compare or gpu)'

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/snakefmt --check src/mutbert/workflow
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/dev
	$(BIN)/python tools/docs.py

clean:
	rm -rf .venv demo site docs/reference dist build/wheel

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11; use a newer one: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv

.venv/all: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing into .venv; this takes a minute or two the first time" >&2
	$(INSTALL) '.[all]'
	@touch $@

.venv/nightly: .venv/dev
	$(INSTALL) '.[nightly]'
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing into .venv; this takes a minute or two the first time" >&2
	$(INSTALL) '.[dev]'
	@touch .venv/all $@
