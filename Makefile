# Everything is set up in .venv on first use: a clean clone needs Python 3.11 or later, git and make.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test faults soak corpus lint format docs-check xrootd-server chromium clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 16

install: $(STAMP)  ## make .venv with everything in it

# torch first and exactly: the release that has a wheel without CUDA wherever one is offered.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)  ## the whole chain on simulated jets, below demo-output/ (minutes)
	$(BIN)/storagering demo

# Three at a time on two cores: many tests wait, for servers, locks and processes of their own.
test: $(STAMP) xrootd-server chromium  ## all tests, the README's code included
	$(BIN)/pytest -n 3 --dist worksteal $(PYTEST_ARGS)

faults: $(STAMP) xrootd-server  ## every scenario of crashes, full disks, damage and bad input, in depth: a table of all
	$(BIN)/pytest -n 2 -q -m scenario --soak --scenario-report $(PYTEST_ARGS)

soak: $(STAMP) xrootd-server  ## the tests that take long: thousands of kills, mutations and epochs
	$(BIN)/pytest -n 2 -m soak --soak $(PYTEST_ARGS)

corpus: $(STAMP)  ## convert every ROOT file of ../shared/data and compare with uproot: a table of all
	$(BIN)/pytest -n 2 -q tests/corpus --corpus-report benchmarks/results/corpus.json

lint: $(STAMP)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## put the code into its style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs-check: $(STAMP)  ## run the README's code
	$(BIN)/pytest -n 0 tests/test_readme.py

# Tests read from a real server. Where it cannot be had they are skipped, except in continuous integration.
xrootd-server:
	@command -v xrootd > /dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -q && apt-get install -qy --no-install-recommends xrootd-server; \
	fi; \
	command -v xrootd > /dev/null && exit 0; \
	echo "no XRootD server (apt-get install xrootd-server): its tests are skipped" >&2; \
	test -z "$$CI"

# The catalog's report is looked at in a real browser; as above.
chromium:
	@have() { command -v chromium || command -v chromium-browser || command -v google-chrome; }; \
	have > /dev/null && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		apt-get update -q && apt-get install -qy --no-install-recommends chromium; \
	fi; \
	have > /dev/null && exit 0; \
	echo "no Chromium (apt-get install chromium): its tests are skipped" >&2; \
	test -z "$$CI"

clean:  ## remove all that was made here, .venv included
	rm -rf .venv .nox .mypy_cache .ruff_cache .pytest_cache .hypothesis dist demo-output
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
