# `make demo` and `make test` are all the set-up there is: each makes .venv first if it is missing or out of date.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
SOURCES := pyproject.toml constraints.txt
WORKERS ?= 2
# Modules of benchmarks/ that measure nothing by themselves.
NO_BENCHMARK := __init__ harness peers processes

.PHONY: help install demo test check lint types contracts bench clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

install: $(VENV)/.installed  ## make .venv with video-sae in it

demo: $(VENV)/.installed  ## run every stage on the embedded default; the report is runs/demo/report/index.html
	$(BIN)/video-sae demo

test: $(VENV)/.installed-dev  ## run the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

check: lint types contracts test  ## lint, types, import contracts and tests

lint: $(VENV)/.installed-dev  ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev  ## pyright
	$(BIN)/pyright --pythonpath $(BIN)/python

contracts: $(VENV)/.installed-dev  ## which package may import which
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev  ## run every benchmark and refresh benchmarks/README.md
	$(INSTALL) --no-deps dictionary-learning einops
	@set -e; for file in $(filter-out $(NO_BENCHMARK:%=benchmarks/%.py),$(wildcard benchmarks/*.py)); do \
		name=$$(basename $$file .py); \
		$(BIN)/python -m benchmarks.$$name --json benchmarks/results/$$name.json; done
	$(BIN)/python -m benchmarks.harness

clean:  ## remove the environment and caches, but no runs
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "$(PYTHON) was not found: install Python 3.11 or newer, or name one with make PYTHON=/path/to/python3." >&2; \
		exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$($(PYTHON) -V 2>&1), but video-sae needs Python 3.11 or newer:" \
			"name one with make PYTHON=python3.11." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module: install it (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.python $(SOURCES)
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) -e '.[dev]'
	@touch $@
