# Copyright 2026 The alocc_ros authors. Licensed under the Apache License, Version 2.0.
# Needs python3 (3.10 or newer, with venv), make, cmake and a C compiler; the rest goes into .venv
# on first use. `make setup GPU=1` takes the CUDA build of torch instead of the CPU one, and
# `make setup GPU=1 TENSORRT=1` TensorRT besides.
# ROS 2 comes from wheels too (a C++ compiler builds the messages): ROS=jazzy takes that release,
# ROS=0 none. Another release wants another folder: `make test VENV=.venv-jazzy ROS=jazzy`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT := out
STAMP := $(VENV)/.setup-$(if $(GPU),gpu,cpu)$(if $(TENSORRT),-tensorrt)
ROS ?= kilted
ROS_STAMP := $(if $(filter-out 0,$(ROS)),$(VENV)/.ros-$(ROS))
# The release whose wheels the node is tested with besides, in an environment of its own.
OTHER_ROS := $(if $(filter kilted,$(ROS)),jazzy)

# Where pip installs to is decided here; where it downloads from stays the user's choice.
export PIP_USER := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PIP_PYTHON PIP_DRY_RUN PIP_NO_DEPS PIP_REPORT
unexport PIP_IGNORE_INSTALLED PIP_FORCE_REINSTALL PIP_EDITABLE PIP_REQUIREMENT PIP_LOG
unexport PIP_QUIET PIP_VERBOSE PIP_UPGRADE PIP_NO_BINARY PIP_REQUIRE_HASHES PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help setup ros lint format test test-ros test-upstream test-fast test-gpu-less sanitize \
	fuzz docs lock sbom demo bench clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##/  make \1 \t/p' $(MAKEFILE_LIST) | expand -t 24

setup: $(STAMP) $(ROS_STAMP)  ## set up .venv (GPU=1: with CUDA; TENSORRT=1; ROS=0: without ROS)

$(STAMP): setup.py setup.cfg pyproject.toml tools/install_torch.py tools/install_gpu_tests.py \
		tools/lock.py $(wildcard locks/python-*.txt)
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 10) and \
	  f"error: Python 3.10 or newer is needed, {sys.executable} is {v[0]}.{v[1]}; make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "pip>=25.3" "setuptools>=68" "wheel>=0.40"
	$(BIN)/python tools/install_torch.py $(if $(GPU),--gpu)
	$(BIN)/python tools/lock.py install
	$(BIN)/python -m pip install --quiet --no-build-isolation -e ".[test]"
	$(BIN)/python -m pip install --quiet --no-deps "nuscenes-devkit==1.2.0"
	$(BIN)/python tools/install_gpu_tests.py $(if $(TENSORRT),--tensorrt)
	touch $@

ros: $(ROS_STAMP)  ## only the ROS part of setup: wheels and our messages

$(VENV)/.ros-%: tools/install_ros.py tools/lock.py ros_wheels/%.txt CMakeLists.txt \
		$(wildcard msg/*.msg ros_wheels/tf2_msgs/*.* ros_wheels/tf2_msgs/*/*) | $(STAMP)
	$(BIN)/python tools/install_ros.py --distro $* --stamp $@

lint: $(STAMP)  ## style and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: $(STAMP)  ## rewrite the sources in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Two processes of one thread each; the node's tests measure time and want the machine.
test: lint $(ROS_STAMP)  ## everything that CI runs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --ignore test/ros
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 $(BIN)/python -m pytest -q -n 2 test/gpu/interpreter
	$(BIN)/python -m pytest -q test/ros
ifneq ($(OTHER_ROS),)
	if $(BIN)/python -m pip show --quiet ros-rclpy 2>/dev/null; then \
	  $(MAKE) test-ros ROS=$(OTHER_ROS) VENV=$(VENV)-$(OTHER_ROS) GPU=; fi
endif

test-ros: $(ROS_STAMP)  ## the tests of the node (ROS=jazzy VENV=.venv-jazzy: over those wheels)
	$(BIN)/python -m pytest -q test/ros

# With the Python that sees the distribution; nothing is fetched, and .venv is not used.
test-upstream:  ## the tests of the node over a sourced ROS 2 distribution: no wheels, no stand-ins
	@$(PYTHON) tools/upstream_ros.py
	$(PYTHON) -m pytest -q test/ros

test-fast: $(STAMP)  ## the tests that need neither ROS nor data, in two minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile test/unit -m "not slow and not ros"

test-gpu-less: $(STAMP)  ## what can be proven of the GPU path without a GPU, in six minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile test/gpu
	OMP_NUM_THREADS=1 TRITON_INTERPRET=1 $(BIN)/python -m pytest -q -n 2 test/gpu/interpreter

# Leaks are Python's and torch's own. The library is built anew into a cache of its own.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g
sanitize: $(STAMP)  ## the tests of the C kernels under ASan and UBSan (gcc), some minutes
	CC="gcc $(SANITIZE)" XDG_CACHE_HOME=$(CURDIR)/$(OUT)/sanitize \
	  LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PYTHONMALLOC=malloc \
	  $(BIN)/python -m pytest -q -p no:cacheprovider test/unit/ops test/unit/test_ray_casting.py

docs: $(STAMP)  ## the documentation as a site: out/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

SECONDS := 60
fuzz: $(STAMP)  ## hostile files and messages into every reader (SECONDS=600)
	ALOCC_FUZZ_SECONDS=$(SECONDS) $(BIN)/python -m pytest -q -s test/fuzz

lock: $(STAMP) $(ROS_STAMP)  ## lock files with hashes, of what this environment has tested
	$(BIN)/python tools/lock.py write
	$(if $(ROS_STAMP),$(BIN)/python tools/lock.py write --ros $(ROS))

# In an environment of its own: what lists the packages is none of them.
sbom: $(STAMP)  ## what is installed in .venv, as CycloneDX: out/sbom.json
	test -x $(VENV)-sbom/bin/cyclonedx-py || { $(PYTHON) -m venv $(VENV)-sbom && \
	  $(VENV)-sbom/bin/python -m pip install --quiet "cyclonedx-bom>=7,<8"; }
	mkdir -p $(OUT)
	$(VENV)-sbom/bin/cyclonedx-py environment --output-reproducible -o $(OUT)/sbom.json $(BIN)/python

# `alocc demo` itself says what is missing where ROS could not be set up (ROS=0, no C++ compiler).
demo: $(STAMP) $(ROS_STAMP)  ## a synthetic street into the node; scores, MCAP, picture (VIEW=1: show it)
	$(BIN)/alocc demo -o $(OUT)/demo $(if $(VIEW),--view)

bench: $(STAMP)  ## time the networks on this machine
	$(BIN)/alocc benchmark

clean:  ## remove what the commands above made, .venv too
	rm -rf $(VENV) $(VENV)-jazzy $(VENV)-sbom $(OUT) build dist alocc_ros.egg-info .pytest_cache .ruff_cache .import_linter_cache
