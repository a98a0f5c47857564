# Two commands matter to a new user: `make demo` and `make test`. Each sets up what it needs.
# PYTHON=/path/to/python3.12 chooses the interpreter; any Python from 3.11 on will do.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
OUT ?= out/demo
# as many test processes as there are cores, whole files each, so that what a file prepares is prepared once
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: setup demo test static check verify bench docs clean

setup: $(VENV)/.installed

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "vtwin needs Python 3.11 or newer: install it, or say make PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing vtwin and its pinned dependencies into $(VENV) (once)"
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/.installed
	@echo "Installing the pinned tools for tests and checks into $(VENV) (once)"
	$(PIP) -e '.[dev]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/vtwin plan cases/demo/case.toml -o $(OUT)

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow" --cov --cov-report=term:skip-covered

static: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: static test

verify: $(VENV)/.installed-dev
	$(PYTEST) -m slow
	$(BIN)/vtwin verify

docs: $(VENV)/.installed-dev
	$(BIN)/mkdocs build --strict --quiet
	@echo "open build/site/index.html"

bench: $(VENV)/.installed
	$(BIN)/vtwin bench

clean:
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis
