# `make build` and `make test` need python3, pip, make and a C compiler; all else is made here.

PYTHON ?= python3
PYTHONS ?= python3.10 python3.11 python3.12 python3.13
WORKERS ?= 2
EFFORT ?= 20
STRESS_TIMEOUT := 7200
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TYPES := build/types/fa4_precompile
SOURCES := __init__.py __main__.py activate.py cli.py errors.py py.typed \
	cache canary carry commands kernel_specs loader masks precompile products providers reports text

# In the order of the files: the few tests that take longest would else come last, when one worker has nothing to do.
PYTEST = $(patsubst %,TMPDIR=%,$(shell tests/scratch.sh)) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: build test test-all quick pythons stress bench known-bad lint types format clean

build: $(INSTALLED)  ## Build the quickstart spec into build/kernels, and verify it.
	$(BIN)/fa4-precompile build kernel_specs/quickstart.yaml --cache build/kernels
	$(BIN)/fa4-precompile verify --cache build/kernels

test: $(INSTALLED)  ## Run the test suite; it compiles real kernels.
	$(PYTEST)

test-all: $(INSTALLED)  ## Run the tests that take longest, too.
	$(PYTEST) --long

quick: $(INSTALLED)  ## Run the tests that compile no kernel.
	$(PYTEST) -m "not compiles"

pythons:  ## Run `quick` under each of PYTHONS that is here, in build/PYTHON.
	@failed=; for python in $(PYTHONS); do \
		if ! $$python -c "" 2>/dev/null; then echo "$$python: is not here, skipped"; continue; fi; \
		$(MAKE) quick PYTHON=$$python VENV=build/$$python || failed="$$failed $$python"; \
	done; \
	if [ "$$failed" ]; then echo "failed:$$failed"; exit 1; fi

stress: $(INSTALLED)  ## Run tests/faults, and all tests that depend on chance, EFFORT times as long as `make test`.
	$(PYTEST) --long --effort $(EFFORT) --timeout $(STRESS_TIMEOUT) tests/faults
	$(PYTEST) --long --effort $(EFFORT) --timeout $(STRESS_TIMEOUT) -m chance --ignore tests/faults

bench: $(INSTALLED)  ## Measure builds, plans and reading beside stock FlashAttention; half an hour on two idle cores.
	$(BIN)/python benchmarks/figures.py

known-bad: $(INSTALLED)  ## Write what jobs read of kernel_specs/known_bad.yaml.
	$(BIN)/python -m fa4_precompile.providers.known_bad > build/known_bad.json
	mv build/known_bad.json kernel_specs/known_bad.json

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
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[build,sign,ship,dev]'
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) build
