# `make serve` and `make test` need nothing but Python 3.11 and a network: both set .venv up by themselves.
MODEL ?=
PORT ?= 8000
HOST = 127.0.0.1
ARGS ?=
PYTEST_ARGS ?=
WORKERS ?= 2
PYTEST = "$(BIN)/python" -m pytest --numprocesses $(WORKERS) --dist loadfile
VENV ?= .venv
BIN ?= $(VENV)/bin
SETUP ?= VENV="$(VENV)" scripts/venv.sh
ALL = test dev --optional aot --optional clients --optional deploy --optional otel
VERSION_TESTS ?= tests/gpu tests/models tests/sampling tests/engine
SHELL_SCRIPTS = tpu_setup.sh .ci/run scripts/*.sh

.DEFAULT_GOAL := help
.PHONY: help serve test sanitize test-slow test-versions test-notebooks judges soak check check-format check-lint check-types check-imports check-shell format bench aot docs clean check-env

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile

serve: ## serve a model: MODEL=directory, .gguf, hub id or story (default: SmolLM2-135M-Instruct) PORT=8000 HOST=127.0.0.1 ARGS='further flags'
	@$(SETUP)
	@exec "$(BIN)/jaxserve" serve $(if $(MODEL),"$(MODEL)") --host "$(HOST)" --port "$(PORT)" $(ARGS)

test: ## run the tests, two at a time: PYTEST_ARGS='-k name' WORKERS=2
	@$(SETUP) $(ALL)
	@$(PYTEST) -m "not slow" $(PYTEST_ARGS)

# jaxlib's exceptions need the C++ library before the sanitizer's; the test left out loads a whole model, whose kernels
# are another library of the same names.
sanitize: ## the C++ kernels' tests with the address sanitizer
	@$(SETUP) test dev
	LD_PRELOAD="$$($${CXX:-c++} -print-file-name=libasan.so) $$($${CXX:-c++} -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 JAXSERVE_SANITIZE=1 \
	  "$(BIN)/python" -m pytest -q tests/models/test_native.py -k "not bfloat16_that_is_stored" $(PYTEST_ARGS)

test-slow: ## run the sweeps that `make test` leaves out
	@$(SETUP) $(ALL)
	@$(PYTEST) -m slow $(PYTEST_ARGS)

test-versions: ## the core's tests with Python 3.12 and its jax, and programs for an H100 compiled without one
	@VENV=.venv-3.12 PYTHON="$${PYTHON:-python3.12}" scripts/venv.sh test --optional aot-gpu
	@.venv-3.12/bin/python -m pytest --numprocesses $(WORKERS) --dist loadfile -m "not slow" $(VERSION_TESTS) $(PYTEST_ARGS)

test-notebooks: ## run the notebooks in examples/: ARGS='--write' keeps what they show
	@$(SETUP) test notebooks
	@"$(BIN)/python" scripts/run_notebooks.py $(ARGS)

judges: ## run other people's tests against a server: ARGS='--url http://127.0.0.1:8000'
	@$(SETUP) test --optional clients --optional judges
	@"$(BIN)/python" scripts/judges.py $(ARGS)

check: check-format check-lint check-types check-imports check-shell ## format, lint, types, import contracts, shell scripts

check-env:
	@$(SETUP) $(ALL)

check-format: check-env
	"$(BIN)/ruff" format --check .

check-lint: check-env
	"$(BIN)/ruff" check .

check-types: check-env
	"$(BIN)/mypy"

check-imports: check-env
	"$(BIN)/lint-imports" --no-cache

check-shell: check-env
	"$(BIN)/shellcheck" $(SHELL_SCRIPTS)

format: check-env ## rewrite the code in the project's format
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .

soak: ## fairness, host time, churn, and that answers stay the same under load: ARGS='--churn-seconds 1800 --requests 10000'
	@$(SETUP) test
	@"$(BIN)/python" -m benchmarks.soak $(ARGS)

bench: ## measure against other engines: BENCH_PYTHON=python with torch, transformers, llama-cpp-python, gguf
	@$(SETUP) test
	@"$(BIN)/python" -m benchmarks $(ARGS)

aot: ## compile every family's programs for TPUs that are elsewhere, write the tables of docs/aot.md: ARGS='--only v6e'
	@$(SETUP) test --optional aot
	@"$(BIN)/python" -m benchmarks.aot $(ARGS)
	@"$(BIN)/python" scripts/make_aot_table.py

docs: ## build the documentation as a site, in site/
	@$(SETUP) docs
	@NO_MKDOCS_2_WARNING=1 "$(BIN)/mkdocs" build --quiet --strict

clean: ## remove the environment, caches and build outputs
	rm -rf "$(VENV)" "$(VENV).lock" .venv-3.12 .venv-3.12.lock build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
