# The README's two commands are `make demo` and `make test`; they need Python, pip and make only.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test test-all test-stores check format bench bench-diagnose bench-train bench-gpu bench-generate docs clean

demo: $(VENV)/.installed
	$(BIN)/wellfit quickstart

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4

test-all: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 -m "not gpu"

# In an environment of its own: these libraries ask for other versions of ours.
test-stores:
	test -x $(VENV)-stores/bin/python || $(PYTHON) -m venv $(VENV)-stores
	$(VENV)-stores/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[dev,stores]"
	$(VENV)-stores/bin/python -m pytest tests/diagnosis/test_diagnose_stores.py

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/train_step.py --out benchmarks/results/train_step.json

# Needs labelled logs (LOGS=DIR); the four peers are installed in .venv-peers, never in .venv.
bench-diagnose: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/diagnose.py $(if $(LOGS),--logs $(LOGS)) --out benchmarks/results/diagnose.json

# Trainers against each other, about 35 minutes, then time to a loss, about 25; the peers are
# installed in .venv-peers. Wants a machine that does nothing else.
bench-train: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/train_race.py --out benchmarks/results/train_race.json
	$(BIN)/python benchmarks/time_to_loss.py --out benchmarks/results/time_to_loss.json

# Tokens a second that are written, beside `transformers.generate` on the same weights.
bench-generate: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/generate.py --out benchmarks/results/generate.json

# Says so and ends well where no GPU is present.
bench-gpu: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/gpu.py --out benchmarks/results/gpu.json

docs: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(INSTALL) --editable ".[dev]"
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist src/*.egg-info
