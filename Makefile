# Each target does its own set-up: a virtual environment with pinned packages.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test test-all lint bench clean
.DEFAULT_GOAL := test

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Alliage needs Python 3.11 or later; set PYTHON=, e.g. make PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[tune,bench,dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/alliage demo -o demo-results

test: $(STAMP)
	$(BIN)/pytest -n auto

test-all: $(STAMP)
	$(BIN)/pytest -n auto -m ''

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) demo-results build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
