# One target per job; CI runs exactly these (.ci/run).
.DEFAULT_GOAL := help
.PHONY: help install weights run test test-main test-xtts test-vllm lint type protos docs lock bench chaos images-check clean

BIN := .venv/bin
PACKAGES := deploy/grafana deploy/images libs/common/src/atrium_common libs/diffusion/src $(wildcard services/*/src) scripts examples $(wildcard models/starter/*.py) models/starter/starter_trainer
TEST_ARGS ?=
# Three workers, for two cores: tests wait now and then. conftest.py says which tests stay
# together. Chosen tests run in one process.
TEST_WORKERS ?= -n 3 --no-loadscope-reorder --durations 15
RUN_ARGS ?=
ROUNDS ?= 200

help:  ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install:  ## Make the environment in .venv (ATRIUM_TORCH_INDEX: an index of CPU wheels of torch)
	@scripts/install.sh

run: install  ## Start the whole suite on this machine (RUN_ARGS="--help" lists the options)
	@$(BIN)/python scripts/run.py $(RUN_ARGS)

weights: install  ## Fetch the starter models
	@$(BIN)/python -m atrium_common.weights ensure --catalogue models/starter.yaml \
	  --models-dir .atrium/models

# Tests that TEST_ARGS choose are those of .venv; XTTS has an environment of its own.
test: $(if $(TEST_ARGS),,test-xtts) test-main  ## Run every test but the vLLM engine's (TEST_ARGS="-k stt" chooses)

test-main: install $(if $(TEST_ARGS),,weights)  ## Run the tests of .venv
	@scripts/test_tools.sh
	$(BIN)/python -m pytest $(or $(TEST_ARGS),$(TEST_WORKERS))

lint: install  ## Check format, style, types, layers, the wire, Dockerfiles and scripts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(PACKAGES)
	$(BIN)/lint-imports --no-logo
	@scripts/wire_check.sh
	$(BIN)/hadolint $(shell git ls-files '*Dockerfile')
	$(BIN)/shellcheck $(shell git ls-files '*.sh' .ci/run)

type: install  ## Check the types alone
	$(BIN)/mypy $(PACKAGES)

protos: install  ## Generate the committed stubs from protos/
	scripts/protos.sh

docs: install  ## Write the tables of docs/configuration.md from the settings classes
	$(BIN)/python scripts/config_reference.py

lock: install  ## Write the lock files anew (UPGRADE=1: with the newest versions)
	scripts/lock.sh

bench: install  ## Measure the gateway and the services beside their baselines
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

chaos: install  ## Kill gateway, Redis and PostgreSQL under load and check the ledger (ROUNDS=200, SEED=)
	@scripts/test_tools.sh
	$(BIN)/python -m tests.chaos --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

images-check: weights  ## Take the images' steps in fresh roots and start them there (SERVICES="stt llm"; root)
	deploy/images/check.sh $(SERVICES)

test-vllm:  ## Run the vLLM engine on a CPU, in an environment of its own (2.5 GB)
	scripts/test_vllm.sh

test-xtts: install  ## Run the XTTS engine on a CPU, in an environment of its own (180 MB over .venv)
	scripts/test_xtts.sh

clean:  ## Remove caches and builds (not .venv, nor the state in .atrium)
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find libs services scripts tests -name __pycache__ -prune -exec rm -rf {} +
	find libs services -name '*.egg-info' -prune -exec rm -rf {} +
	rm -rf libs/*/build services/*/build
