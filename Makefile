# Everything runs in a virtual environment of the project's own; nothing else is needed but Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

.PHONY: help demo test test-long test-engine check format proto bench clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

$(STAMP): pyproject.toml
	@echo "==> creating $(VENV) and installing flight-replica with its tools (about a minute, once)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "flight-replica needs Python 3.11 or newer, found " + sys.version.split()[0])'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)  ## a primary, a live writer and a replica; ARGS="--seconds 60"
	@$(BIN)/flight-replica demo $(ARGS)

test: $(STAMP)  ## unit, property and integration tests; ARGS="-k name"
	@echo "==> running the tests"
	@$(BIN)/python -m pytest $(ARGS)

test-long: $(STAMP)  ## the tests that take minutes each
	@$(BIN)/python -m pytest -m long $(ARGS)

test-engine: $(STAMP)  ## the tests beside the real engine; builds it first (minutes, once), needs cargo
	@echo "==> building the engine where needed, and running the tests beside it"
	@$(BIN)/python -m pytest -m engine $(ARGS)

check: $(STAMP)  ## lint, format and strict types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP)  ## rewrite the sources in the one format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

proto: $(STAMP)  ## regenerate flight_replica/_pb from proto/
	@$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=flight_replica/_pb proto/*.proto

bench: $(STAMP)  ## run every benchmark; results go to benchmarks/results
	@for file in benchmarks/bench_*.py; do $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done

clean:  ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
