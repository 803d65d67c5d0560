# Everything runs in a virtual environment of the project's own; nothing else is needed but Python 3.11+.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=

.PHONY: help demo test test-long test-engine test-alerts test-docs test-page page-image dist test-dist test-bounds docs check format proto config bench bench-quick bench-long bench-peers bench-hogs clean

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

test-page: $(STAMP)  ## the page in Debian's Chromium, which it installs; pictures go to build/page
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[page]'
	@$(BIN)/python -m pytest -m chromium tests/chromium $(ARGS)

page-image: export FLIGHT_REPLICA_PAGE_IMAGE := 1
page-image: ARGS := -k a_picture_of_it_is_made
page-image: test-page  ## the picture of the page in docs/images, made anew

test-alerts: $(STAMP)  ## each alert rule fired by its fault; minutes, needs Debian's package prometheus
	@$(BIN)/python -m pytest -m alerts $(ARGS)

test-docs: $(STAMP)  ## every shell block of README and docs, also those that take minutes
	@$(BIN)/python -m pytest tests/integration/test_doc_blocks.py -m "docs or not docs" $(ARGS)

dist: $(STAMP)  ## wheel and sdist in dist/, the same bytes each time
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist .

test-dist: $(STAMP)  ## wheel and sdist: what is in them, and the demo from the wheel in an empty environment
	@$(BIN)/python -m pytest -m dist $(ARGS)

# Tests that meet each dependency where a version of it may differ: types and keys, Iceberg, object stores,
# logins, HTTP, metrics, the terminal, drivers; and servers as processes.
BOUNDS_TESTS := tests/unit/base tests/unit/beside tests/unit/flightsql tests/unit/state tests/unit/http \
	tests/unit/metrics tests/unit/test_schema.py tests/unit/test_keys.py tests/unit/test_digest.py \
	tests/integration/flightsql/test_adbc_client.py tests/integration/flightsql/test_logins_over_flight.py \
	tests/integration/flightsql/test_tls.py tests/integration/http tests/integration/admin \
	tests/integration/test_iceberg_sources.py tests/integration/test_object_stores.py \
	tests/integration/test_cli.py tests/integration/test_clients.py tests/integration/test_doc_blocks.py

test-bounds: $(STAMP)  ## telling tests with the oldest and the newest dependencies that are allowed
	@for end in lowest-direct highest; do \
		echo "==> $$end"; \
		$(BIN)/uv venv --quiet --clear --python $(BIN)/python .bounds/$$end && \
		$(BIN)/uv pip install --quiet --system-certs --python .bounds/$$end --resolution $$end --editable '.[test]' && \
		.bounds/$$end/bin/python -m pytest $(BOUNDS_TESTS) $(ARGS) || exit 1; \
	done

docs: $(STAMP)  ## README and docs as a site in site/; every link and anchor in it is checked
	@$(BIN)/python -m mkdocs build --strict --quiet
	@echo "==> site/index.html; the links that leave it are listed in site/external-links.txt"

check: $(STAMP)  ## lint, format and strict types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(STAMP)  ## rewrite the sources in the one format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

proto: $(STAMP)  ## regenerate flight_replica/_pb from proto/
	@$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=flight_replica/_pb $(filter-out proto/admin.proto,$(wildcard proto/*.proto))
	@$(BIN)/python -m grpc_tools.protoc -Iflight_replica/_pb=proto --python_out=. --grpc_python_out=. proto/admin.proto

config: $(STAMP)  ## rewrite config.example.toml and the tables of docs/configuration.md
	@$(BIN)/python -m tests.config_pages

bench: $(STAMP)  ## measure everything (under 40 minutes); results and benchmarks/README.md are made anew
	@$(BIN)/python -m benchmarks.run full $(ARGS); code=$$?; $(BIN)/python -m benchmarks.report; exit $$code

bench-quick: export FLIGHT_REPLICA_BENCH_RESULTS := $(VENV)/bench-quick
bench-quick: $(STAMP)  ## a small edition of the main ones (under 3 minutes); keeps nothing
	@$(BIN)/python -m benchmarks.run quick $(ARGS)

bench-long: $(STAMP)  ## memory and disk under ops and readers that never pause, for 10 minutes
	@$(BIN)/python -m benchmarks.run long; code=$$?; $(BIN)/python -m benchmarks.report; exit $$code

bench-peers: $(STAMP)  ## the same queries on other Flight SQL servers, which it installs
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[peers]'
	@$(BIN)/python -m benchmarks.bench_peers
	@$(BIN)/python -m benchmarks.report

bench-hogs: $(STAMP)  ## how long each function goes on after an interrupt (more than 10 minutes)
	@$(BIN)/python -m benchmarks.bench_hogs

clean:  ## remove the environment and caches
	rm -rf $(VENV) .bounds dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
