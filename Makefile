# `make build` and `make test` need python3, pip, make and a C compiler; all else is made here.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TYPES := build/types/fa4_precompile
SOURCES := __init__.py __main__.py activate.py cli.py errors.py py.typed \
	cache commands kernel_specs loader masks precompile products providers text

.PHONY: build test lint types format clean

build: $(INSTALLED)  ## Build the quickstart spec into build/kernels, and verify it.
	$(BIN)/fa4-precompile build kernel_specs/quickstart.yaml --cache build/kernels
	$(BIN)/fa4-precompile verify --cache build/kernels

test: $(INSTALLED)  ## Run the whole test suite; it compiles real kernels.
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The repository is the package, whatever its folder is called, so mypy gets it under the package's name.
types: $(INSTALLED)
	rm -rf $(TYPES) && mkdir -p $(TYPES)
	ln -s $(foreach source,$(SOURCES),$(CURDIR)/$(source)) $(TYPES)/
	$(BIN)/mypy -p fa4_precompile
	$(BIN)/mypy tests benchmarks

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# torch first, by itself: a CPU build is enough, and pip finds one only where its settings name an index that has it.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[build,dev]'
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) build
