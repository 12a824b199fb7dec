# clusterkit: `make demo` runs a job on a real cluster on this machine, `make test` runs every test.
SHELL := /bin/bash
.DEFAULT_GOAL := help
python := .venv/bin/python

.PHONY: help setup demo check test bench clean

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv with everything that develops and tests clusterkit
	@scripts/setup all

demo: ## start a cluster here, submit examples/flights.py, show what to try next
	@scripts/setup demo
	@scripts/demo

check: setup ## lint, types, unit tests (3 minutes)
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy
	.venv/bin/lint-imports --no-cache
	$(python) -m pytest tests/unit

test: check ## every test; builds real environments, starts its own clusters
	$(python) -m pytest tests/environments tests/cluster

bench: setup ## every benchmark, ours beside the peers'
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(python) "$$script" || exit 1; done

clean: ## remove what the targets above made in this checkout
	rm -rf .venv .peers .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
