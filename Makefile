# Each target does its own set-up: a virtual environment with pinned packages.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PEERS  ?= .venv-peers
PEERS_STAMP := $(PEERS)/.installed

.PHONY: demo test test-all peers lint bench clean
.DEFAULT_GOAL := test

check_python = @$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Alliage needs Python 3.11 or later; set PYTHON=, e.g. make PYTHON=python3.11" >&2; exit 2; }

$(STAMP): pyproject.toml constraints.txt
	$(check_python)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[tune,remote,ray,bench,dev]'
	@touch $@

# Other projects, apart from ours: tests/real asks their real functions.
$(PEERS_STAMP): peers.txt
	$(check_python)
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check -r peers.txt
	@touch $@

peers: $(PEERS_STAMP)

demo: $(STAMP)
	$(BIN)/alliage demo -o demo-results

# A full disk fails everything after it: stop early and say why.
test: $(STAMP)
	$(BIN)/pytest -n auto --maxfail=20

test-all: $(STAMP) $(PEERS_STAMP)
	ALLIAGE_PEERS=$(PEERS) $(BIN)/pytest -n auto -m ''

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) $(PEERS) demo-results build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
