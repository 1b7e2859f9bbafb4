# The README's two commands are `make demo` and `make test`; `make help` lists the rest.
SHELL := /bin/bash
TORCHEXT_PYTHON ?= $(CURDIR)/.venv/bin/python
PY := $(TORCHEXT_PYTHON)
BUILD ?= build
JOBS ?= $(shell nproc)
CMAKE := $(shell dirname $(PY))/cmake
CMAKE_FLAGS ?=

.PHONY: help setup build
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: ## create .venv with everything the project needs
	@tools/setup.sh

build: ## build the extension in place
	@PATH="$(dir $(PY)):$$PATH" cmake -S . -B $(BUILD) -G Ninja -DPython_EXECUTABLE=$(PY) -DTORCHEXT_TESTS=ON $(CMAKE_FLAGS) > /dev/null
	@PATH="$(dir $(PY)):$$PATH" cmake --build $(BUILD) -j $(JOBS)
	@PATH="$(dir $(PY)):$$PATH" cmake --install $(BUILD) --component python --prefix torchext > /dev/null
