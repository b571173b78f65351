# make demo   installs into .venv and runs the main job: runs/<time>-digits/
# make test   installs into .venv and runs ruff, mypy and pytest
# make oldest  an environment with the oldest supported onnxruntime, for its test
# make lint   ruff and mypy alone
# make clean  removes .venv and caches; never touches runs/

PYTHON ?=
PIP_FLAGS ?=
PYTEST_FLAGS ?= -n 2 --dist worksteal
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
OLDEST := .venv-oldest
OLDEST_ONNXRUNTIME := 1.22.0

.PHONY: demo test lint install oldest clean
.DEFAULT_GOAL := demo

demo: $(INSTALLED)
	$(BIN)/cosearch run

test: lint oldest
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_FLAGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt .ci/environment
	PYTHON="$(PYTHON)" PIP_FLAGS="$(PIP_FLAGS)" .ci/environment $(VENV)
	touch $@

oldest: $(OLDEST)/.installed

$(OLDEST)/.installed: $(INSTALLED)
	$(BIN)/python -m venv --clear $(OLDEST)
	$(OLDEST)/bin/pip install --disable-pip-version-check -q $(PIP_FLAGS) onnxruntime==$(OLDEST_ONNXRUNTIME) numpy
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
