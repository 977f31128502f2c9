# `make run` and `make test` are all a reader needs; `make help` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH ?= torch==2.13.0
# make test starts from here, so that every notebook cell is executed for real
EMPTY := $(CURDIR)/.test-outputs
# One test process a core. Tests that follow each other run in one process, since they share fixtures; a process that has
# none left takes over some of another's.
SIDE_BY_SIDE := -n auto --maxprocesses=8 --dist worksteal
NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout=1200

# Packages that decide results and that a hosted runtime may replace: not torch, numpy or pillow, which it has loaded
DECIDE := accelerate|datasets|huggingface-hub|lm-eval|openai|peft|rouge-score|sacrebleu|safetensors|sentencepiece|tokenizers|transformers|trl

.DEFAULT_GOAL := help
.PHONY: help run test test-studies test-portable test-kills lab notebooks address base-models lock clean

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*  ## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

run: $(INSTALLED)  ## set up, run the embedded study, say where its report is
	@$(BIN)/sbt run params/embedded

test: $(INSTALLED)  ## style, unit tests, static checks, and every notebook from an empty outputs folder
	$(BIN)/ruff check .
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)
	rm -rf $(EMPTY)
	SBT_OUTPUTS=$(EMPTY) $(BIN)/python -m pytest $(NBVAL) notebooks
	rm -rf $(EMPTY)

test-studies: $(INSTALLED)  ## every study of params/ at toy sizes, from an empty cache against a loopback hub (about an hour)
	$(BIN)/python -m pytest tests/test_small_runs.py --studies

# Numbers that training makes, computed under a code path that no processor of today chooses, and that every one has: torch
# does not check whether a capability that is asked for is there, so `avx2` would crash where it is not.
test-portable: $(INSTALLED)  ## training tests and 05_base_models, computed as on an older processor
	ATEN_CPU_CAPABILITY=default $(BIN)/python -m pytest $(SIDE_BY_SIDE) -k "training or base_models"
	rm -rf $(EMPTY)
	ATEN_CPU_CAPABILITY=default SBT_OUTPUTS=$(EMPTY) $(BIN)/python -m pytest $(NBVAL) notebooks/05_base_models.ipynb
	rm -rf $(EMPTY)

test-kills: $(INSTALLED)  ## forty kills at random moments: every result is the uninterrupted run's
	SBT_KILLS=20 $(BIN)/python -m pytest tests/test_kill_resume.py -k random

lab: $(INSTALLED)  ## JupyterLab; every notebook runs with its defaults
	$(BIN)/jupyter lab notebooks

notebooks: $(INSTALLED)  ## run the study at its defaults and publish the executed notebooks; ONLY=63_pope: one of them
	$(BIN)/python -m sbt.study.publish $(if $(ONLY),--only $(ONLY) embedded,first-steps embedded)

address: $(INSTALLED)  ## write the repository's address into notebooks and README: make address URL=https://github.com/...
	$(BIN)/python -m sbt.study.publish --address "$(URL)"

base-models: $(INSTALLED)  ## pretrain the small base models anew (up to an hour); replaces sbt/microworld/assets
	$(BIN)/sbt run params/base-models

lock: $(INSTALLED)  ## choose all versions anew ; torch and CUDA packages are left out
	$(PIP) uv
	$(BIN)/uv pip compile requirements.in --universal --python-version 3.11 --no-annotate --no-header --upgrade -o .lock.tmp
	grep -vE '^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==' .lock.tmp > requirements.lock
	rm .lock.tmp
	grep -E '^($(DECIDE))==' requirements.lock >> .constraints.tmp
	sed -n '/^#/p;/^bitsandbytes\|^liger\|^deepspeed/p' constraints.txt | cat - .constraints.tmp > .constraints
	mv .constraints constraints.txt && rm .constraints.tmp

clean:  ## remove the environment and caches; outputs/ stays
	rm -rf .venv $(EMPTY) .pytest_cache .ruff_cache *.egg-info
	find sbt tests notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

# torch first and by itself: requirements.lock names neither it nor its CUDA packages
$(INSTALLED): requirements.lock pyproject.toml
	@echo "Setting up .venv (some minutes, once)"
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	@$(PYTHON) -m venv .venv
	@$(PIP) $(TORCH)
	@$(PIP) -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@
