# Everything runs in $(VENV); 'make install' makes it, and every other target installs what it needs.
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& command -v $$p && break; done)
SOURCES := talkhead datamodules callbacks tests
# A process for each core, a file of tests at a time; small networks gain little from a second thread.
PARALLEL ?= -n logical --dist loadfile
PYTEST_ARGS ?=
DEMO_ARGS ?=
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all check lint types bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(STAMP)  ## put the suite and its tools into .venv, at the tested versions

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "talkhead needs Python 3.11 or 3.12; none was found" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		-c constraints.txt -e '.[corpus,report,fast,dev]'
	@touch $@

demo: install  ## the whole pipeline in small size, under runs/demo/
	$(BIN)/python -m talkhead demo $(DEMO_ARGS)

test: check  ## the same as check: what has to pass before a change is done

test-all: install  ## every test, the slow ones too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) -m "not gpu and not network" $(PYTEST_ARGS)

check: lint types  ## lint, format, types and the default tests; exactly what CI runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) $(PYTEST_ARGS)

lint: install  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## mypy --strict
	$(BIN)/mypy

bench: install  ## ratios of the loader, the priors and the metrics on this machine
	for file in benchmarks/[a-z]*.py; do $(BIN)/python $$file || exit 1; done

clean:  ## remove caches and build output; runs/ and .venv stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage htmlcov
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +
