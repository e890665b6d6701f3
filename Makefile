# make test    install into .venv (made when there is none), lint, run every test
# make train   draw the built-in data set, train a small Mask2Former with RankSeg on the CPU, evaluate
#              it and write pictures, in some minutes
# PYTHON=python3.12 chooses the interpreter, VENV=path the environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Threads that wait leave the cores to others: on a busy machine they would slow all down.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: test train clean

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist loadfile

train: $(INSTALLED)
	$(BIN)/python train_net.py --config-file shapes/panoptic/r10t_rankseg

$(INSTALLED): pyproject.toml setup.py $(wildcard rankseg_d2/ops/*/csrc/*.* rankseg_d2/ops/*/csrc/*/*.*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "rankseg_d2 needs Python 3.10 or newer; name one: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip setuptools wheel ninja torch torchvision
	$(BIN)/python -m pip install --no-build-isolation -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist output *.egg-info rankseg_d2/_C.so
