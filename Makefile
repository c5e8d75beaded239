# `make` prints this list. Everything runs in .venv, made from requirements.lock on first use.
.DEFAULT_GOAL := help
.PHONY: help repro experiments task flow sweep compare clusters auth circuits server worker deploy test quick coverage check format serve rollback bench bench-serve stability lock ui clean
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export QDK_PYTHON_TELEMETRY := none

# Says in one line where MLflow or DVC cannot work, for targets that read no params.yaml and would fail later.
PLACE := python -m stages.plumbing.place

help: ## print every target
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

repro: $(VENV)/ready ## images to registered network: runs every stage that is out of date
	python -m stages.plumbing.settings
	dvc repro

# DVC always shows all of params.yaml and every dependency; here are the settings in which experiments differ, and their numbers.
experiments: $(VENV)/ready ## experiments side by side: numbers, and the settings in which they differ (ARGS="--sort-by test_accuracy")
	dvc exp show --no-pager --only-changed --drop '^(artifacts|models|stages)(/|$$)' $(ARGS)

task: $(VENV)/ready ## put the settings of another task into params.yaml (NAME=images)
	python -m pipelines.task $(NAME)

flow: $(VENV)/ready ## the same as a Prefect flow, nothing else started (ARGS="-S search.seed=3 --target search")
	python -m pipelines.nas $(ARGS)

sweep: $(VENV)/ready ## search with several seeds, retrain and register the best (ARGS="--seeds 5 --workers 2")
	python -m pipelines.sweep $(ARGS)

compare: $(VENV)/ready ## was the search worth it? random cells and networks made by hand beside the found one (ARGS="--random 8 --seeds 3")
	python -m pipelines.compare $(ARGS)

clusters: $(VENV)/ready ## install Ray and Dask, for sweeps on the machines of a cluster
	uv pip install --quiet --require-hashes --no-deps -r requirements-clusters.lock

auth: $(VENV)/ready ## install what MLflow's server needs for logins (docs/operations.md)
	uv pip install --quiet --require-hashes --no-deps -r requirements-auth.lock

circuits: $(VENV)/ready ## install what the task circuits needs besides: Qiskit and readers of OpenQASM 3 (docs/circuits.md)
	uv pip install --quiet --require-hashes --no-deps -r requirements-circuits.lock

server: $(VENV)/ready ## Prefect's server and pages: http://127.0.0.1:4200
	python -m pipelines.server

deploy: $(VENV)/ready ## send pool, queues, limits and deployments to the server (ARGS="--gpus 2")
	python -m pipelines.deploy $(ARGS)

worker: $(VENV)/ready ## execute what is scheduled; GPU=0: with that GPU, which its runs take by turns
	deploy/worker $(GPU)

# One process of tests per core. The files of minutes come first (tests/conftest.py).
TESTS := -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(VENV)/ready ## run all tests, one process per core
	python $(TESTS)

quick: $(VENV)/ready ## run the unit tests: those that start no process, no server and no real stage
	python $(TESTS) -m "not slow" --timeout 30

coverage: $(VENV)/ready ## run all tests and measure branch coverage, in the processes of stages and servers too
	rm -rf .coverage .coverage.*
	coverage run $(TESTS) $(ARGS)
	coverage combine --quiet
	coverage report

check: $(VENV)/ready ## format, lint, types, and which room imports which
	ruff format --check .
	ruff check .
	basedpyright
	lint-imports

format: $(VENV)/ready ## bring the code into form
	ruff format .
	ruff check --fix .

serve: $(VENV)/ready ## answer pictures over HTTP with the champion: http://127.0.0.1:8000
	@$(PLACE)
	python -m serving --params params.yaml $(ARGS)

rollback: $(VENV)/ready ## champion back to the version before it
	python -m stages.champion back

bench: $(VENV)/ready ## time the search step against the plain implementation (minutes)
	python -m benchmarks.bench $(ARGS)

stability: $(VENV)/ready ## strategies x seeds on digits: which searches fall apart (minutes; ARGS=--help for more)
	python -m benchmarks.stability $(ARGS)

bench-serve: $(VENV)/ready ## time the server against MLflow's on the exported model (minutes)
	@$(PLACE)
	python -m benchmarks.serve_load --model artifacts/export/model.onnx

ui: $(VENV)/ready ## look at all runs in a browser: http://127.0.0.1:5000
	@$(PLACE)
	mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000

# What an extra adds to the lock, into a lock of its own.
EXTRA := --universal --generate-hashes --no-emit-index-url --no-header --no-annotate -q pyproject.toml -c requirements.lock
BEYOND = $$(grep -oE '^[a-z0-9._-]+==' requirements.lock | sed 's/\(.*\)==/--no-emit-package=\1/') | grep -v '^\#'

lock: $(VENV)/ready ## resolve pyproject.toml anew into requirements.lock, and what clusters, auth, circuits and the server's image need into others
	uv pip compile --universal --generate-hashes --no-emit-index-url --group dev pyproject.toml -o requirements.lock -q
	set -o pipefail; uv pip compile $(EXTRA) --extra ray --extra dask $(BEYOND) > requirements-clusters.lock
	set -o pipefail; uv pip compile $(EXTRA) --extra auth $(BEYOND) > requirements-auth.lock
	set -o pipefail; uv pip compile $(EXTRA) --extra circuits $(BEYOND) > requirements-circuits.lock
	uv pip compile --universal --generate-hashes --no-emit-index-url --no-header --no-annotate -q --group serving \
	  -c requirements.lock -o requirements-serving.lock
	python -m stages.plumbing.versions

clean: ## remove what stages, flows, tests and tools have made (not .venv, not the DVC cache)
	rm -rf .dvc/tmp/exps/flows && git worktree prune
	rm -rf artifacts .checkpoints mlflow.db* mlruns dvc_plots .pytest_cache .ruff_cache .import_linter_cache .coverage .coverage.*

# Python 3.11 or 3.12, whichever is there; uv in the version of the lock, then everything by hash.
$(VENV)/ready: requirements.lock
	@python=; for name in python3.12 python3.11 python3; do \
	  if $$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo "error: no Python 3.11 or 3.12 found; install one" >&2; exit 2; fi; \
	$$python -m stages.plumbing.place $(VENV) || exit 2; \
	[ -x $(BIN)/python ] || $$python -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -oE '^uv==[^ ]+' requirements.lock)"
	$(BIN)/uv pip sync --quiet --require-hashes --compile-bytecode requirements.lock
	@touch $@
