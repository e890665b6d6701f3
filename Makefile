# Targets are listed by `make help`. PYTHON=python3.12 chooses the interpreter, VENV=path the
# environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Threads that wait soon leave the cores to others: on a busy machine they would slow all down.
# OMP_WAIT_POLICY=PASSIVE, not to wait at all, makes a training on a quiet one half as long again.
export GOMP_SPINCOUNT ?= 3000

# Where most mistakes show: the paper's arithmetic, golden numbers, losses, results, labels, configs.
QUICK := tests/ranking tests/modeling/losses tests/modeling/results \
  $(addprefix tests/modeling/meta_arch/test_,golden_models.py rankseg.py mask_classification.py) \
  tests/data/formats $(addprefix tests/data/mappers/test_,packed_masks.py images.py) \
  tests/test_config.py tests/test_config_files.py tests/test_imports.py
DEMO := shapes/panoptic/lite0_rankseg
TOO_LONG := gradcheck or checkpointing or two_batches_of_one or traced or compile or inductor

.PHONY: test quick faults train bench gpu help clean

test: $(INSTALLED)  ## install into .venv, lint, run every test
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist loadfile

quick: $(INSTALLED)  ## lint, and the tests that find most mistakes, in about a minute
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n 2 --dist loadfile -k "not ($(TOO_LONG))" $(QUICK)

faults: $(INSTALLED)  ## malformed input, kills and sanitizers, for some minutes
	RANKSEG_FAULT_SECONDS=30 $(BIN)/python -m pytest -n 2 -m "faults or slow" -rP tests/faults

train: $(INSTALLED)  ## train a small Mask2Former with RankSeg on built-in data, on the CPU
	$(BIN)/python train_net.py --config-file $(DEMO)
	$(BIN)/rankseg-d2 compare $(DEMO) --weights output/$(subst panoptic/,,$(DEMO))/model_final.pth \
	  --beside benchmarks/studies/shapes.json baseline

bench: $(INSTALLED)  ## run the benchmarks that this machine can; results in benchmarks/RESULTS.md
	$(BIN)/python benchmarks/run.py

gpu: $(INSTALLED)  ## build the op for this GPU, run its tests and benchmarks, each in 8 minutes
	$(BIN)/python benchmarks/run.py --device cuda

$(INSTALLED): pyproject.toml setup.py $(wildcard rankseg_d2/ops/*/csrc/*.* rankseg_d2/ops/*/csrc/*/*.*)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "rankseg_d2 needs Python 3.10 or newer; name one: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip setuptools wheel ninja torch torchvision
	$(BIN)/python -m pip install --no-build-isolation -e '.[dev]'
	touch $@

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/make \1\t\2/p' Makefile

clean:  ## remove the environment, built files and output
	rm -rf $(VENV) build dist output *.egg-info rankseg_d2/_C.so
