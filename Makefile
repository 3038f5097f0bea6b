# Every target does all of its own set-up; where there is nothing to do, that costs nothing.

PYTHON ?= python3
PYTEST_ARGS ?=

# The caller's PYTHONPATH is for the caller's Python, not for the one in .venv.
VENV_PYTHON := env -u PYTHONPATH -u PYTHONHOME .venv/bin/python
SETUP := $(PYTHON) scripts/bootstrap.py --extras
FIGURES := benchmarks/figures
# A NumPy that has types, unlike that of Debian's Caffe; nothing imports it.
TYPED := .venv/typed-numpy

.DEFAULT_GOAL := help
.PHONY: help setup data demo test test-all lint bench bench-full docs clean distclean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## make .venv with Caffe, this project and what its tests need
	@$(SETUP) test

data: setup ## make the LMDBs of the MNIST example
	@$(VENV_PYTHON) examples/mnist/create_mnist.py

demo: data ## train LeNet on MNIST with a Python update
	@$(VENV_PYTHON) examples/mnist/demo.py

test: setup ## run the quick tests (PYTEST_ARGS="..." is passed on)
	@$(VENV_PYTHON) -m pytest $(PYTEST_ARGS)

test-all: setup ## run all tests, also those marked slow
	@$(VENV_PYTHON) -m pytest -m "" $(PYTEST_ARGS)

lint: ## check style and types
	@$(SETUP) test,lint
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m mypy
	@test -d $(TYPED) || $(VENV_PYTHON) -m pip install -q --no-deps --target $(TYPED) numpy==1.26.4
	@MYPYPATH=$(TYPED) $(VENV_PYTHON) -m mypy --cache-dir .mypy_cache/typed
	@$(VENV_PYTHON) .venv/bin/lint-imports

bench: data ## compare the speed with the native solver's, in a few minutes
	@$(VENV_PYTHON) benchmarks/update.py --values 33.6e6 --pairs 5
	@$(VENV_PYTHON) benchmarks/beyond.py
	@$(VENV_PYTHON) benchmarks/noop.py
	@$(VENV_PYTHON) benchmarks/small.py
	@$(VENV_PYTHON) benchmarks/start.py --pairs 3
	@$(VENV_PYTHON) benchmarks/runs.py --nets lenet --pairs 3

bench-full: data ## all of it, PyTorch too (.venv-torch); write the raw figures and the pictures
	@mkdir -p $(FIGURES)
	@$(VENV_PYTHON) benchmarks/update.py --torch --json $(FIGURES)/update.json
	@$(VENV_PYTHON) benchmarks/noop.py --json $(FIGURES)/noop.json
	@$(VENV_PYTHON) benchmarks/small.py --json $(FIGURES)/small.json
	@OPENBLAS_NUM_THREADS=1 $(VENV_PYTHON) benchmarks/runs.py --nets lenet --json $(FIGURES)/runs_lenet.json
	@$(VENV_PYTHON) benchmarks/runs.py --nets alexnet --json $(FIGURES)/runs_alexnet.json
	@$(VENV_PYTHON) benchmarks/beyond.py --json $(FIGURES)/beyond.json
	@$(VENV_PYTHON) benchmarks/audit.py --json $(FIGURES)/audit.json
	@$(VENV_PYTHON) benchmarks/start.py --json $(FIGURES)/start.json
	@$(VENV_PYTHON) benchmarks/ranks.py --json $(FIGURES)/ranks.json
	@$(VENV_PYTHON) benchmarks/aims.py $(FIGURES)
	@$(VENV_PYTHON) benchmarks/plots.py $(FIGURES)/update.json docs/images

docs: ## build the documentation
	@$(SETUP) test,docs
	@NO_MKDOCS_2_WARNING=1 $(VENV_PYTHON) -m mkdocs build --strict

clean: ## remove what the targets make, except .venv and Caffe
	@rm -rf examples/mnist/mnist_*_lmdb runs build dist site *.egg-info htmlcov .coverage
	@rm -rf .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . \( -path ./.caffe -o -path ./.caffe.work -o -path ./.caffes -o -path ./.pythons -o -path ./.venv -o -path ./.venv-torch \) -prune -o -name __pycache__ -exec rm -rf {} +

distclean: clean ## remove .venv and Caffe too
	@rm -rf .venv .venv.lock .venv-torch .caffe .caffe.work .caffe.lock .caffes .pythons
