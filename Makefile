# Every target works as the first command on a fresh machine with Python 3.11+: it makes .venv and installs into it.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && { echo $$p; break; }; done)
# Another environment with other versions: make VENV=.venv-hydra14 CONSTRAINTS=constraints-hydra14.txt test
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
PY := $(if $(filter Windows_NT,$(OS)),$(VENV)/Scripts/python.exe,$(VENV)/bin/python)
INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) --editable
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup train sweep report test test-all quick lint bench tensorboard docs clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.dev  ## Create .venv and install the project with the tested versions
	@echo "ready; in each new terminal first: source $(VENV)/bin/activate (Windows: $(VENV)/Scripts/activate)"

# Compiling all that is installed takes as long as installing it, and the commands import a third of the files.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	@test -n "$(PYTHON)" || { echo "error: Python 3.11, 3.12 or 3.13 is needed; make PYTHON=/path/to/python3.12 names one" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) . --no-compile
	@PYTHONDONTWRITEBYTECODE= $(PY) -c "import n2n_lightning.training.run, n2n_lightning.report, skimage.data, scipy.stats"
	@touch $@

# The tests and optional parts, apart, so that make train starts sooner.
$(VENV)/.dev: $(VENV)/.installed
	$(INSTALL) ".[dev]"
	@# The tests start many processes. Some packages hold examples that are no Python; they do not matter here.
	@PYTHONDONTWRITEBYTECODE= $(PY) -m compileall -q -j 0 $(VENV) >/dev/null 2>&1 || true
	@touch $@

train: $(VENV)/.installed  ## Train a small U-Net on the embedded photographs (ARGS="optim.lr=0.001 ..." changes anything)
	$(PY) -m n2n_lightning.train $(ARGS)

PYTEST := $(PY) -m pytest -n 2 --dist loadgroup

test: $(VENV)/.dev  ## Run the tests (ARGS="-k resume" picks some)
	$(PYTEST) -m "not walk" $(ARGS)

test-all: $(VENV)/.dev  ## Run all tests, also the walks through whole commands with rare kinds of data
	$(PYTEST) $(ARGS)

quick: $(VENV)/.dev  ## Run the tests but for those that take long
	$(PYTEST) -m "not slow and not walk" $(ARGS)

lint: $(VENV)/.dev  ## Check style and types
	$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

bench: $(VENV)/.installed  ## Measure speed and memory beside other ways, into bench.json; leave the machine alone meanwhile
	$(PY) benchmarks/bench.py --out bench.json $(ARGS)

report: $(VENV)/.installed  ## Figures and tables of everything under outputs/ (of a short run first, where there is none)
	@find outputs -name result.json | grep -q . || $(PY) -m n2n_lightning.train trainer.max_epochs=2
	$(PY) -m n2n_lightning.report outputs --out report $(ARGS)

sweep: $(VENV)/.installed  ## Sweep the learning rate on the embedded photographs (ARGS="seed=1,2,3 ...")
	$(PY) -m n2n_lightning.train -m optim.lr=0.01,0.003,0.001,0.0003 $(ARGS)

tensorboard: $(VENV)/.installed  ## Look at the curves of everything under outputs/
	$(PY) -m tensorboard.main --logdir outputs

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.dev  ## Build the documentation as a site, site/index.html; a broken link is an error
	$(PY) -m mkdocs build --strict --quiet
	@echo "site/index.html; its search needs a server: python -m http.server --directory site"

clean:  ## Remove .venv and caches, never outputs/ or data/
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache dist site
