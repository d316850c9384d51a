# SPDX-License-Identifier: Apache-2.0
# make demo    the whole way: search space, supernet, search, int8, interpreter
# make test    lint, then all tests but the slow (PYTEST_ARGS="-k boards" for some of them); 8 to
#              18 minutes on two cores, by their speed
# make test-slow  the slow ones: an install in a clean Debian (as root, with debootstrap), and what else takes minutes
# make test-arm  all random networks on simulated Cortex-M4, M7 and M55 (packages:
#              debian-packages.txt); make test takes some of them
# make test-sanitize  the tests of the kernels, which stop at any undefined behaviour or wrong access
# make fuzz    100,000 damaged models with checksums that fit, through kernels with the same sanitizers: most of an hour
#              (FUZZ=2000: fewer). Interrupted, it goes on where it was
# make tflm-check TFLM_DIR=tree TFLM_LIB=library  exported models in a TFLM that you built with its own Makefile
#              (TFLM_FLAGS: more compiler flags; MODEL: a .tflite of yours)
# make lint    check style, types with mypy, C with cppcheck   make format   fix style
# make docs    the documentation as a site, in build/site
# make release  every archive of this version (sdist, wheels, exports) in dist, of the last commit; uploads nothing
#              (MODEL: the .tflite to export, else that of make demo). docs/release.md
# make bench   all benchmarks (installs tensorflow and other runtimes too)
# make clean   remove what was built, and .venv
# Each makes .venv if there is none. PYTHON=python3.12 chooses the interpreter it is made with.

PYTHON ?= python3
PYTEST_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

LIBRARY := $(or $(wildcard mcuformer/libmcuformer_host.dylib),mcuformer/libmcuformer_host.so)
NATIVE_SOURCES := $(shell find tflm_kernels -type f -not -name '.*')
PROJECT_FILES := setup.cfg setup.py mcuformer/native.py pyproject.toml constraints.txt

.PHONY: demo test test-slow test-arm test-sanitize fuzz sanitized tflm-check lint format docs release bench clean FORCE
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/mcuformer demo

test: lint
	OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 $(PYTEST_ARGS)

# Tests of one file share what they install, so they stay together; three processes, since installing waits a lot. One of
# them builds the documentation.
test-slow: $(VENV)/.installed-docs
	OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m slow -rs $(PYTEST_ARGS)

test-arm: $(VENV)/.installed
	MCUFORMER_TEST_ARM=all OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 tests/firmware tests/core_arm

# The kernels and the ops around them, compiled with sanitizers; Python itself is not, so its leaks do not count.
SANITIZE := -fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=all
SANITIZED_TESTS := tests/core tests/kernels tests/converter tests/planner tests/e2e tests/export

WITH_SANITIZERS := MCUFORMER_HOST_LIBRARY=$(CURDIR)/build/sanitize/mcuformer/libmcuformer_host.so \
  LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0 OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1
FUZZ ?= 100000

sanitized: $(VENV)/.installed
	CFLAGS="-O1 -g $(SANITIZE)" CXXFLAGS="-O1 -g $(SANITIZE)" LDFLAGS="$(SANITIZE)" \
	  $(BIN)/python setup.py -q build_ext --build-lib build/sanitize --build-temp build/sanitize/objects

test-sanitize: sanitized
	$(WITH_SANITIZERS) $(BIN)/python -m pytest -n 2 $(SANITIZED_TESTS) $(PYTEST_ARGS)

fuzz: sanitized
	$(WITH_SANITIZERS) $(BIN)/python tools/fuzz_models.py --count $(FUZZ) --logs build/fuzz

tflm-check: $(VENV)/.installed
	@$(BIN)/python tools/tflm_check/tflm_check.py --dir '$(TFLM_DIR)' --lib '$(TFLM_LIB)' --flags='$(TFLM_FLAGS)' \
	  $(if $(MODEL),--model '$(MODEL)')

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(BIN)/mypy & types=$$!; tools/check_c.sh && wait $$types

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	@tools/check_c.sh --format

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "built build/site: open build/site/index.html, or serve it with python -m http.server -d build/site"

release: $(VENV)/.installed
	@$(BIN)/python tools/release.py --model '$(or $(MODEL),mcuformer-demo/model.tflite)'

bench: $(VENV)/.installed-bench
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/run_all.py

clean:
	rm -rf $(VENV) build dist mcuformer.egg-info $(LIBRARY)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Done when pip is there: a failed "python -m venv" can leave an environment without it.
$(BIN)/pip:
	$(PYTHON) -m venv $(VENV)

# One install serves all targets. It runs again when the metadata or a native source changed, or the library is
# gone.
$(VENV)/.installed: $(PROJECT_FILES) $(NATIVE_SOURCES) $(if $(wildcard $(LIBRARY)),,FORCE) | $(BIN)/pip
	$(PIP_INSTALL) -e '.[dev]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP_INSTALL) -e '.[dev,docs]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(PIP_INSTALL) -e '.[dev,bench]'
	@touch $@
