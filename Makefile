# `make demo` and `make test` do all of their own set-up in .venv; the only thing they need is Python >= 3.11.
# A stamp file stands for each finished set-up step: nothing is installed twice unless what it depends on changes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2

# What each set-up installs on top of the base package.
DEMO_EXTRAS := lightning,demo,keras
TEST_EXTRAS := lightning,demo,keras
# Keras picks its backend once per process: the adapter's tests run once for each of these.
KERAS_BACKENDS := torch jax tensorflow

# The pin of constraints.txt, named first and directly on pip's command line: a resolver that met torch only as a
# dependency would be free to look at newer builds for accelerators, several gigabytes each.
TORCH := $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
MANIFESTS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-keras lint clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile

demo: $(VENV)/.demo-ready ## train in Lightning and in Keras, with and without the guard, and print what happened
	@$(BIN)/nan-callbacks demo

test: test-keras $(VENV)/.test-ready ## run all tests; PYTEST_ARGS="-k name" selects some, WORKERS=4 uses more processes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

test-keras: $(VENV)/.test-ready ## run the Keras adapter's tests on every backend, one process group each
	@for backend in $(KERAS_BACKENDS); do \
		echo "Keras on $$backend:"; \
		KERAS_BACKEND=$$backend OMP_NUM_THREADS=1 TF_CPP_MIN_LOG_LEVEL=3 \
			$(BIN)/python -m pytest tests/keras_adapter tests/layer_check/test_keras.py -q -n $(WORKERS) $(PYTEST_ARGS) || exit 1; \
	done

lint: $(VENV)/.lint-ready ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## remove the environment, caches and build products
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	find src -name '*.egg-info' -type d -prune -exec rm -rf {} +

# --group, used below, came with pip 25.1: newer than the pip which `venv` puts in.
$(VENV)/.pip-ready: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Python >= 3.11 is needed, '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." \
			"Run: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up $(VENV); this happens once and takes a minute or so ..."
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --upgrade pip
	@touch $@

$(VENV)/.demo-ready: $(VENV)/.pip-ready $(MANIFESTS)
	@$(INSTALL) $(TORCH) --editable ".[$(DEMO_EXTRAS)]"
	@touch $@

$(VENV)/.test-ready: $(VENV)/.pip-ready $(MANIFESTS)
	@$(INSTALL) $(TORCH) --editable ".[$(TEST_EXTRAS)]" --group test
	@touch $@

# mypy reads the types of what the package imports, so the linters stand on the tests' set-up.
$(VENV)/.lint-ready: $(VENV)/.test-ready
	@$(INSTALL) --group lint
	@touch $@
