# The README's two commands are `make demo` and `make test`; `make help` lists the rest.
SHELL := /bin/bash
ifdef TORCHEXT_PYTHON
export TORCHEXT_PYTHON
endif
PY := $(or $(TORCHEXT_PYTHON),$(CURDIR)/.venv/bin/python)
BUILD ?= build
JOBS ?= $(shell nproc)
CMAKE_FLAGS ?=
PYTEST_ARGS ?=
export PATH := $(dir $(PY)):$(PATH)

CXX_FILES = $(shell git ls-files '*.h' '*.cpp' '*.cuh' '*.cu')

.PHONY: help setup lock build build-gpu demo test test-gpu ctest pytest sanitize bench bench-gpu fmt lint style tidy spills docs wheel install-test test-compat clean
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## create .venv with everything the project needs
	@tools/setup.sh

lock: setup ## write requirements.lock anew, with the newest allowed versions
	@uv pip compile -q --upgrade --universal --python-version 3.11 --no-header --no-annotate \
	  --all-extras requirements.in pyproject.toml -o requirements.lock

build: setup ## build the extension in place
	@mkdir -p $(BUILD)
	@cmake -S . -B $(BUILD) -G Ninja -DPython_EXECUTABLE=$(PY) -DTORCHEXT_TESTS=ON -DTORCHEXT_LIBTORCH=ON \
	  $(CMAKE_FLAGS) > $(BUILD)/configure.log 2>&1 || { cat $(BUILD)/configure.log; exit 1; }
	@cmake --build $(BUILD) -j $(JOBS)
	@cmake --install $(BUILD) --component python --prefix torchext > /dev/null

demo: build ## train linear models at 8, 4 and 2 bits on real data, a few minutes
	@$(PY) -m training.linear.demo

test: ctest pytest ## build, then every C++ and Python test

ctest: build ## GoogleTest suites of the kernels
	@ctest --test-dir $(BUILD) --output-on-failure --no-tests=error -j $(JOBS)

# One torch thread a worker: OpenMP threads that outnumber the cores wait for each other.
pytest: build ## Python tests; PYTEST_ARGS is passed on
	@OMP_NUM_THREADS=1 $(PY) -m pytest -q -n $(JOBS) $(PYTEST_ARGS)

sanitize: setup ## kernel tests under the address and undefined-behaviour sanitizers
	@cmake -S . -B $(BUILD)/sanitize -G Ninja -DTORCHEXT_PYTHON_MODULE=OFF -DTORCHEXT_CUDA=OFF -DTORCHEXT_TESTS=ON \
	  -DTORCHEXT_SANITIZE=ON > /dev/null
	@cmake --build $(BUILD)/sanitize -j $(JOBS)
	@ctest --test-dir $(BUILD)/sanitize --output-on-failure --no-tests=error -j $(JOBS)

bench: build ## the benchmark of the linear path
	@$(PY) -m benchmarks.linear

# For the card that is present alone: every further architecture takes nvcc as long again.
build-gpu: setup
	@arch=$$($(PY) tools/gpu_arch.py) && \
	  $(MAKE) -s build CMAKE_FLAGS="-DTORCHEXT_CUDA=ON -DTORCHEXT_LIBTORCH=OFF -DCMAKE_CUDA_ARCHITECTURES=$$arch-real $(CMAKE_FLAGS)"

test-gpu: build-gpu ## on a machine with a GPU: its tests, compute-sanitizer, the demo
	@tools/test-gpu.sh $(PY) $(BUILD)/test-gpu

bench-gpu: build-gpu ## on a machine with a GPU: its benchmark, JSON in build/
	@$(PY) -m benchmarks.cuda --json $(BUILD)/bench-gpu.json

fmt: setup ## format C++ and Python
	@clang-format -i $(CXX_FILES)
	@ruff format -q . && ruff check -q --fix --select I .

lint: style tidy ## everything below

style: setup ## format check, ruff, mypy, codespell
	@clang-format --dry-run --Werror $(CXX_FILES)
	@ruff format --check -q . && ruff check -q .
	@mypy
	@codespell $$(git ls-files)

tidy: build ## clang-tidy on the kernels
	@JOBS=$(JOBS) tools/tidy.sh $(BUILD)

spills: build ## no CUDA kernel keeps registers in local memory (needs nvcc, no GPU); SPILL_ARCHS="80": there too
	@tools/check-spills.sh $(BUILD) $(dir $(PY))..
	@for arch in $(SPILL_ARCHS); do \
	  cmake -S . -B $(BUILD)/sm_$$arch -G Ninja -DTORCHEXT_PYTHON_MODULE=OFF -DTORCHEXT_CUDA=ON \
	    -DCMAKE_CUDA_ARCHITECTURES=$$arch-real > /dev/null && \
	  cmake --build $(BUILD)/sm_$$arch -j $(JOBS) --target torchext_cuda_kernels && \
	  tools/check-spills.sh $(BUILD)/sm_$$arch $(dir $(PY)).. || exit 1; \
	done

docs: build ## Sphinx pages in docs/_build/html; every example in docstrings and pages is run
	@$(PY) -m pytest -q --doctest-modules --doctest-glob='*.md' -p no:cacheprovider torchext docs $(wildcard README.md)
	@$(PY) -m sphinx -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

wheel: build ## abi3 wheel in dist/, from the build tree that the tests used
	@mkdir -p dist && rm -f dist/*.whl
	@$(PY) -m pip wheel -q . --no-build-isolation --no-deps -w dist \
	  --config-settings=--global-option="build --build-temp=$(abspath $(BUILD))"
	@ls -l dist/*.whl

install-test: wheel ## the wheel in a clean environment, and a C++ user of the installed kernels
	@tests/install/run.sh $(PY) $(BUILD)

test-compat: build ## the built extension under the newest torch on the package index
	@tools/test-compat.sh $(PY)

clean: ## remove what the build made; .venv stays
	@rm -rf $(BUILD) dist *.egg-info docs/_build torchext/_build.py torchext/*.so .pytest_cache .mypy_cache .ruff_cache
