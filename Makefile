# One command per developer action; continuous integration runs the same ones. Needs GNU make 3.81 or later.
#
#   make setup PYTHON=python3.12       another Python for the new environment
#   make setup VENV=/path/to/env       another place, or an environment that is there already

VENV ?= .venv
PYTHON ?= python3

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
CONSTRAINTS := $(VENV)/constraints.txt
STAMP := $(VENV)/.installed

# Threads that spin for long while they wait make CPU work several times slower when another process is busy.
export GOMP_SPINCOUNT ?= 1000

.DEFAULT_GOAL := help
.PHONY: help setup demo study bench test test-all docs lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## create .venv and install everything (first time: 3 GB, a few minutes)
	@echo "Ready: $(BIN)/python"

demo: $(STAMP) ## train on synthetic images on the CPU, into output/demo
	$(BIN)/python tools/demo.py --output output/demo

test: $(STAMP) ## the tests that take seconds
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-all: $(STAMP) ## all tests, also those that are slow, need the network or a GPU
	$(BIN)/python -m pytest -m ""

study: $(STAMP) ## the toy study: 60 runs, about two hours on two CPU cores, into output/study
	$(BIN)/python tools/make_toy_dataset.py --output $${DETECTRON2_DATASETS:-datasets}/toy
	$(BIN)/python tools/make_toy_dataset.py --classification --output $${DETECTRON2_DATASETS:-datasets}/toy_classes
	[ -f output/pretrain_R_18_gn/backbone.pth ] || OMP_NUM_THREADS=1 $(BIN)/python tools/pretrain_backbone.py \
	  --resume --config-file configs/toy/pretrain_R_18_gn.yaml
	OMP_NUM_THREADS=1 $(BIN)/python tools/sweep.py toy_study --run --at-once 2
	$(BIN)/python tools/compare_runs.py output/sweeps/toy_study/*x_seed? --margin 1 --output output/study/report.html \
	  --figures output/study/figures --json output/study/comparison.json
	$(BIN)/python tools/compare_runs.py output/sweeps/toy_study/*@10_seed? --margin 1 \
	  --output output/study/report_10_percent.html --json output/study/comparison_10_percent.json
	$(BIN)/python tools/compare_runs.py output/sweeps/toy_study/*@1_seed? --margin 1 \
	  --output output/study/report_1_percent.html --json output/study/comparison_1_percent.json

bench: $(STAMP) ## time everything beside stock Detectron2 on the CPU, into output/bench
	$(BIN)/python tools/benchmark.py all --against stock --json output/bench --figure output/bench/ratios.png

docs: $(STAMP) ## the documentation as pages, into output/docs
	@$(PIP) install -q --no-build-isolation -c $(CONSTRAINTS) -e ".[docs]"
	rm -rf output/docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs output/docs

lint: $(STAMP) ## complain about style
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check

format: $(STAMP) ## mend what can be mended
	$(BIN)/python -m ruff check --fix-only
	$(BIN)/python -m ruff format

clean: ## remove caches and build files; keeps .venv, output and data sets
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .coverage htmlcov
	find rethink_pretrain tests tools -name __pycache__ -prune -exec rm -rf {} +

# Fails with one line where `setup` could not end well.
define check_python
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    where = "%s is Python %d.%d" % (sys.executable, sys.version_info[0], sys.version_info[1])
    sys.exit("error: %s; 3.10 to 3.13 is needed. Name one: make setup PYTHON=python3.12 VENV=.venv" % where)
try:
    import ensurepip, venv
except ImportError:
    sys.exit("error: this Python cannot make virtual environments. Debian, Ubuntu: apt install python3-venv")
endef

# A torch that is installed already, for example for one CUDA version or without CUDA, wins over the lock.
define write_constraints
import sys
from importlib import metadata
found = {d.metadata["Name"]: d.version for n in ("torch", "torchvision") for d in metadata.distributions(name=n)}
with open("requirements.lock") as lock:
    lines = lock.readlines()
if found:
    print("      left alone: " + ", ".join("%s %s" % pair for pair in found.items()))
    lines = [line for line in lines if not line.startswith(("torch==", "torchvision=="))]
    lines += ["%s==%s\n" % pair for pair in found.items()]
with open(sys.argv[1], "w") as constraints:
    constraints.writelines(lines)
endef

define check_torch
import sys
try:
    import torch, torchvision
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
except Exception as error:
    sys.exit("error: torch and torchvision do not work together (%s). Install both from the same place." % error)
endef

export check_python write_constraints check_torch

# The stamp is written last: a step that fails leaves none, and the next `make` goes on from there.
# pip stays as it is: what comes with Python 3.10 to 3.13 does all this, while 26.3 refuses Detectron2's archive
# (tools/install_detectron2.py explains).
$(STAMP): setup.py requirements.lock tools/install_detectron2.py
	@echo "[1/4] virtual environment $(VENV)"
	@python="$(BIN)/python"; [ -x "$$python" ] || python="$(PYTHON)"; \
	  command -v "$$python" > /dev/null || { echo "error: no $$python here. Name one: make setup PYTHON=..."; exit 1; }; \
	  "$$python" -c "$$check_python"
	@[ -x $(BIN)/python ] || "$(PYTHON)" -m venv "$(VENV)"
	@$(PIP) --version > /dev/null 2>&1 || $(BIN)/python -m ensurepip > /dev/null
	@$(PIP) install -q "setuptools>=77" wheel
	@echo "[2/4] torch and torchvision"
	@$(BIN)/python -c "$$write_constraints" $(CONSTRAINTS)
	@quiet=-q; [ ! -t 1 ] || $(PIP) show -q torch 2> /dev/null || quiet=; \
	  $(PIP) install $$quiet -c $(CONSTRAINTS) torch torchvision
	@$(BIN)/python -c "$$check_torch"
	@echo "[3/4] rethink_pretrain and its requirements"
	@$(PIP) install -q --no-build-isolation -c $(CONSTRAINTS) -e ".[test]"
	@echo "[4/4] Detectron2"
	@$(BIN)/python tools/install_detectron2.py
	@touch $@
