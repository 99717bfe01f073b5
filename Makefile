# `make demo` and `make test` are all the set-up there is: each makes .venv first if it is missing or out of date.

PYTHON ?= python3
VENV ?= .venv
LOWEST := $(VENV)-lowest
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
SOURCES := pyproject.toml constraints.txt
WORKERS ?= 2
# Where this program meets its libraries.
LOWEST_TESTS ?= tests/test_video_sae.py tests/browse tests/collect tests/demo tests/features tests/steer tests/train_sae
# The browsers that the tests of browse's page look for.
BROWSERS := chromium chromium-browser google-chrome google-chrome-stable
# The library that browse's page brings along, and the checksum of its package.
UPLOT := 1.6.32
UPLOT_SHA256 := 4b8a8191e425658e3ea8c8c1314b0fc679c861ee3a1af2b20c7b16ba50b5133d
# Modules of benchmarks/ that measure nothing by themselves.
NO_BENCHMARK := __init__ demo_passes harness hook_script made_store peers planted_codes processes sizes

.PHONY: help install demo test test-lowest check lint types contracts bench browser vendor clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

install: $(VENV)/.installed  ## make .venv with video-sae in it

demo: $(VENV)/.installed  ## run every stage on the embedded default; the report is runs/demo/report/index.html
	$(BIN)/video-sae demo

test: $(VENV)/.installed-dev  ## run the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow"

test-lowest: $(LOWEST)/.installed  ## the same with the lowest versions that pyproject.toml allows, in .venv-lowest
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow" $(LOWEST_TESTS)

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

browser:  ## install a browser for the tests of browse's page, if there is none (Debian)
	@for name in $(BROWSERS); do command -v $$name && exit 0; done; \
	as_root=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	$$as_root apt-get update && $$as_root apt-get install --yes --no-install-recommends chromium

vendor:  ## fetch the library of browse's page anew (npm), at its pinned version
	@set -e; folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; target=$$PWD/browse/page/vendor; cd "$$folder"; \
	npm pack --silent uplot@$(UPLOT) >/dev/null; echo "$(UPLOT_SHA256)  uplot-$(UPLOT).tgz" | sha256sum --check --quiet; \
	tar xf uplot-$(UPLOT).tgz; mkdir -p "$$target"; \
	cp package/dist/uPlot.iife.min.js package/dist/uPlot.min.css "$$target"; \
	cp package/LICENSE "$$target/uPlot-LICENSE.txt"

clean:  ## remove the environment and caches, but no runs
	rm -rf $(VENV) $(LOWEST) build *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.python $(LOWEST)/.python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "$(PYTHON) was not found: install Python 3.11 or newer, or name one with make PYTHON=/path/to/python3." >&2; \
		exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$($(PYTHON) -V 2>&1), but video-sae needs Python 3.11 or newer:" \
			"name one with make PYTHON=python3.11." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) has no venv module: install it (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	$(PYTHON) -m venv $(@D)
	@touch $@

$(VENV)/.installed: $(VENV)/.python $(SOURCES)
	$(INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) -e '.[dev]'
	@touch $@

$(LOWEST)/.installed: $(LOWEST)/.python pyproject.toml constraints-lowest.txt
	$(LOWEST)/bin/python -m pip install --disable-pip-version-check -c constraints-lowest.txt -e '.[test]'
	@touch $@
