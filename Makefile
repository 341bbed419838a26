# Copyright 2026 The road_anomaly_ros authors
# SPDX-License-Identifier: Apache-2.0

PYTHON ?= python3
VENV ?= .venv
ROS ?= kilted jazzy
EXTRA ?= ros
JOBS ?= 2
INPUT ?=
DATA ?= ../shared/data
SECONDS ?= 3600
SCALE ?= 38
GUIDED ?= 1000000
COUNT ?= 1000

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup setup-jazzy demo test beforehand test-kilted test-jazzy test-transformers lint bench benchmark soak fuzz starts clean

ifneq ($(filter-out kilted jazzy,$(or $(ROS),none)),)
$(error expected ROS=kilted or ROS=jazzy, whose wheels are public, got ROS=$(ROS))
endif
# After all tests with Kilted those of processes and recordings are enough; alone it runs them all.
JAZZY := $(if $(filter kilted,$(ROS)),$(patsubst %,test/ros/test_%.py,process record),test/ros)
# The wheels of Jazzy are for Python 3.12 only.
PYTHON312 ?= $(firstword $(foreach found,python3.12 $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/3.12.*/bin/python3.12),$(if $(shell $(found) -c "print(1)" 2>/dev/null),$(found))))

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

setup: $(STAMP)  ## make .venv and install everything into it (PYTHON=python3.12 chooses the interpreter)

$(STAMP): setup.py setup.cfg
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	    { echo "setup: expected Python >= 3.10, got $$($(PYTHON) --version 2>&1); try make setup PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo "setup: $(PYTHON) cannot make environments; try: sudo apt install python3-venv" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'setup: installing into $(VENV), a few minutes the first time'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[$(EXTRA),dev]'
	@touch $@

demo: setup  ## watch it work, results in demo_out/ (INPUT=dashcam.mp4 for your own footage)
	@$(BIN)/road-anomaly demo $(if $(INPUT),"$(INPUT)") -o demo_out

test: $(if $(TRANSFORMERS),test-transformers,$(addprefix test-,$(ROS)))  ## run every check, then those of ROS with the wheels of Jazzy (ROS=kilted, ROS=jazzy: one alone; TRANSFORMERS=4.56.0: those of its networks with that version)

# Style and types take one core; the other one installs meanwhile.
beforehand: setup
	@$(MAKE) --no-print-directory -j2 lint $(if $(filter jazzy,$(ROS)),setup-jazzy)

setup-jazzy:
ifneq ($(PYTHON312),)
	@$(MAKE) --no-print-directory setup VENV=.venv-jazzy PYTHON=$(PYTHON312) EXTRA=ros-jazzy
endif

# What failed beside the other half runs once more, alone: DDS finds its peers late under load.
test-kilted: beforehand
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup; code=$$?; \
	    if [ $$code -eq 1 ]; then $(BIN)/python -m pytest --last-failed; else exit $$code; fi

test-jazzy: setup-jazzy
ifeq ($(PYTHON312),)
	@echo 'test: skipped, the wheels of Jazzy need Python 3.12, none is installed (PYTHON312=... names one)'
else
	@.venv-jazzy/bin/python -m pytest -o cache_dir=.pytest_cache/jazzy -n $(JOBS) --dist loadfile $(JAZZY); code=$$?; \
	    if [ $$code -eq 1 ]; then .venv-jazzy/bin/python -m pytest -o cache_dir=.pytest_cache/jazzy --last-failed $(JAZZY); \
	    else exit $$code; fi
endif

# Our forward passes against those of another version; oldest and newest that were tested: setup.py.
test-transformers: setup
	@$(BIN)/pip install -q --upgrade --target build/transformers-$(TRANSFORMERS) \
	    transformers==$(TRANSFORMERS) $$($(BIN)/pip freeze | grep -i '^numpy==')
	@PYTHONPATH=build/transformers-$(TRANSFORMERS) $(BIN)/python -m pytest \
	    test/perception/test_segmenters.py test/perception/test_mask2anomaly.py \
	    test/perception/test_eomt.py test/perception/test_segment_sources.py

lint: setup  ## style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

bench: setup  ## time and memory of every stage on this machine
	@$(BIN)/road-anomaly bench

benchmark: setup  ## accuracy of all methods, docs/accuracy.md and a report in benchmark_out/ (DATA=../shared/data)
	@$(BIN)/road-anomaly benchmark --data "$(DATA)" -o benchmark_out --page docs/accuracy.md

soak: setup  ## the node under load for an hour: memory, latency, threads, files (SECONDS=3600)
	@$(BIN)/python test/soak.py --seconds $(SECONDS)

fuzz: setup  ## a million damaged messages and a hundred thousand damaged files (SCALE=38, GUIDED=1000000)
	@ROAD_ANOMALY_FUZZ=$(SCALE) $(BIN)/python -m pytest -s -o faulthandler_timeout=600 -k mutated \
	    test/ros/test_damaged_messages.py test/ros/test_fuzz_messages.py test/tools/test_fuzz_files.py
	@$(BIN)/python test/guided.py --runs $(GUIDED)
	@$(BIN)/python test/guided.py --only parameter --runs $$(( $(GUIDED) / 10 ))

starts: setup  ## start the node and end it at random moments (COUNT=1000)
	@$(BIN)/python test/starts.py --count $(COUNT)

clean:  ## remove what the commands above made, the environment included
	rm -rf $(VENV) .venv-jazzy demo_out benchmark_out build install log dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
