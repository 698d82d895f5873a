# Every target sets up .venv first when it is missing or older than what it was made from.
# Windows without make: `py -3 scripts/setup_env.py`, then the commands below with .venv\Scripts\
# in place of $(BIN)/. PYTHON=python3.12 (or any other >= 3.11) picks another Python.

ifeq ($(OS),Windows_NT)
PYTHON ?= py -3
BIN := .venv/Scripts
else
PYTHON ?= python3
BIN := .venv/bin
endif
STAMP := .venv/.stamp

.DEFAULT_GOAL := help
.PHONY: help course test soak engines check lab bench notebooks clean

help: ## this list
	@echo "phi-lab: make TARGET   (the first one sets up .venv: about 0.5 GB to download, 2 GB on disk)"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

$(STAMP): pyproject.toml constraints.txt scripts/setup_env.py
	@$(PYTHON) scripts/setup_env.py

course: $(STAMP) ## run the whole course on the CPU into runs/course and write its report
	$(BIN)/phi-lab course

test: export PHI_LAB_PROFILE = smoke
test: export OMP_NUM_THREADS = 1
test: export PYTHONPATH = $(CURDIR)/.engines/llama-cpp
test: $(STAMP) ## run everything CI runs: all tests, and every notebook in the smoke profile
	@$(BIN)/python scripts/engines.py --packages
	$(BIN)/python -m pytest -n 2 --dist loadgroup --nbmake --nbmake-timeout=1500 --durations=10 tests notebooks

soak: export OMP_NUM_THREADS = 1
soak: $(STAMP) ## kill a run and a set at 25 points, each time go on, and compare; much at once: for Linux, about ten minutes
	PYTHONPATH=.:tests $(BIN)/python tests/soak.py --points 25
	PHI_LAB_LOAD=1000000 $(BIN)/python -m pytest tests/test_load.py tests/pipeline/test_damaged_run.py

engines: export OMP_NUM_THREADS = 1
engines: $(STAMP) ## try llama.cpp, SmolLM2, TensorBoard and vLLM's CPU build, in folders of their own: for Linux, some minutes
	$(BIN)/python scripts/engines.py

check: export OMP_NUM_THREADS = 1
check: $(STAMP) ## lint, types and the quick tests, at most three minutes: for daily use
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -n 2 -m "not slow" tests

lab: export PHI_LAB_PROFILE ?= lesson
lab: $(STAMP) ## open your copies of the notebooks (runs/notebooks); PHI_LAB_PROFILE=lab make lab trains the whole recipe
	$(BIN)/phi-lab notebooks --copies
	$(BIN)/python -m jupyterlab runs/notebooks

bench: $(STAMP) ## measure this machine and write bench.json
	$(BIN)/phi-lab bench --json bench.json

notebooks: $(STAMP) ## regenerate the notebooks from their sources
	$(BIN)/phi-lab notebooks

clean: ## remove caches and build leftovers; .venv, runs and data stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find phi_lab tests notebooks scripts \( -name __pycache__ -o -name .ipynb_checkpoints \) \
		-prune -exec rm -rf {} +
