# Everything runs in .venv, which is made at the first call, with the versions of constraints.txt.
#   make demo    the whole way on a simulated population, ending with demo/report.html
#   make test    lint, types, import contracts and tests: what CI runs
#   make lint    the quick part of it
#   make clean   remove .venv and what the demo made

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint clean

demo: .venv/all
	$(BIN)/mutbert demo --output demo --force

# As many processes as there are cores, but two at most: each holds the libraries in memory, and some tests start
# others. Each computes with one thread, so that they do not wait for each other.
test: lint .venv/transformers-tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses logical --maxprocesses 2 --dist worksteal

lint: .venv/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf .venv demo

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11; give a newer one: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv

.venv/all: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing into .venv; this takes some minutes the first time" >&2
	$(PIP) --editable '.[all]'
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing into .venv; this takes some minutes the first time" >&2
	$(PIP) --editable '.[dev]'
	@touch $@

# The library's own tests of models, which no wheel has. Where they cannot be had, ours that use them are skipped.
.venv/transformers-tests: .venv/dev
	@mkdir -p $@ && cd $@ && rm -rf ./* && \
	  version=$$(../bin/python -c 'import transformers; print(transformers.__version__)') && \
	  ../bin/python -m pip download --quiet --disable-pip-version-check --retries 1 --timeout 15 --no-deps \
	    --no-binary transformers "transformers==$$version" && \
	  tar -xzf transformers-*.tar.gz --strip-components 2 --wildcards --no-wildcards-match-slash '*/tests/*.py' && \
	  rm transformers-*.tar.gz && touch __init__.py "$$version" || \
	  echo "the tests of transformers could not be had, so ours that use them are skipped" >&2
	@touch $@
