# The two commands of the README, the checks of CONTRIBUTING, and the tortures. PYTHON picks the interpreter (3.11 or newer) that makes the environment.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

# A GPU as a whole: does it compute what a processor does, how fast, and MINUTES of a teaching grid (the same command goes on). A line that fails stops nothing.
DATA ?= cifar10
MINUTES ?= 8

.PHONY: demo test check torture wheel docs gpu
demo: $(READY)
	$(BIN)/python -m experiments.train demo

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest
	$(BIN)/python -m pytest -m slow

torture: $(READY)
	$(BIN)/python -m tests.torture

wheel: $(READY)
	$(BIN)/python -m tests.wheel_beside

gpu: $(READY)
	-$(BIN)/python -m experiments.bench device --minutes $(MINUTES)
	-$(BIN)/python -m experiments.bench seeds
	$(BIN)/python -m experiments.study teaching_eight --device cuda --workers 12 --minutes $(MINUTES) --out runs/gpu --page --options data $(DATA)

docs: $(READY)
	$(BIN)/python -m mkdocs build --strict

$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(READY)
