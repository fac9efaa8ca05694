# Everything happens in .venv and .plumbline beside this file; nothing global is touched.
PYTHON ?= python3.11
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
export PLUMBLINE_HOME ?= $(CURDIR)/.plumbline
export PATH := $(BIN):$(PATH)

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-20s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: $(VENV)/.installed ## make .venv with the CPU build of everything

# Bytecode is compiled here once rather than by the first worker that imports each module. torch first: where PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL offers the CPU build, pip takes it, and uv then keeps what is there.
$(VENV)/.installed: pyproject.toml requirements/cpu-overrides.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv torch==2.13.0
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --override requirements/cpu-overrides.txt --editable '.[cpu,dev]'
	@touch $@

.PHONY: demo
demo: setup ## the whole product in one command: two jobs, from POST to answers side by side
	$(BIN)/plumbline demo

.PHONY: up
up: setup ## start Plumbline here: Ray, API, controller, dashboard
	$(BIN)/plumbline up

.PHONY: test
test: setup lint ## lint, unit, repository and end-to-end tests
	$(BIN)/python -m pytest tests

.PHONY: test-unit
test-unit: setup ## the tests that start no cluster
	$(BIN)/python -m pytest tests --ignore tests/e2e

.PHONY: test-fuzz
test-fuzz: setup ## requests made up from the OpenAPI document, many more than the tests make, other ones each time
	PLUMBLINE_FUZZ_EXAMPLES=$${EXAMPLES:-300} $(BIN)/python -m pytest tests/api/test_openapi_fuzz.py

.PHONY: lint
lint: setup ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: format
format: setup ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: bench
bench: setup ## time of each stage of the main job on a small model
	$(BIN)/python benchmarks/main_job.py

.PHONY: bench-prepare
bench-prepare: setup ## pairs tokenised per minute and core, against the tokenizer alone
	$(BIN)/python benchmarks/prepare.py

.venv-trl/.installed: # the peer that the engine is measured against, in an environment of its own
	$(PYTHON) -m venv .venv-trl
	.venv-trl/bin/python -m pip install --quiet torch==2.13.0
	.venv-trl/bin/python -m pip install --quiet trl==1.16.0 transformers==5.23.0
	@touch $@

.PHONY: bench-reference-pass
bench-reference-pass: setup .venv-trl/.installed ## reference pass against TRL's
	$(BIN)/python benchmarks/reference_pass.py

.PHONY: bench-train-step
bench-train-step: setup .venv-trl/.installed ## training step against TRL's
	$(BIN)/python benchmarks/train_step.py

.PHONY: bench-gpu
bench-gpu: setup ## reference pass and training step on one CUDA GPU
	$(BIN)/python benchmarks/gpu.py

.PHONY: bench-overlap
bench-overlap: setup ## a job on two pools against its stages alone
	$(BIN)/python benchmarks/overlap.py

.PHONY: bench-sweep
bench-sweep: setup .venv-trl/.installed ## twelve jobs on one dataset against twelve runs of TRL
	$(BIN)/python benchmarks/sweep.py

.PHONY: bench-control-plane
bench-control-plane: setup ## the API under load, on SQLite and PostgreSQL
	$(BIN)/python benchmarks/control_plane.py

.PHONY: clean
clean: ## remove the environment and the local data
	rm -rf $(VENV) .plumbline
