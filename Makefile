# Every target sets up what it needs in ./.venv; `make tune` and `make test` work from a bare clone.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# What runs many processes compiles the program once, whatever the environment says.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help setup setup-dev tune test test-system test-engine soak check docs format reference lock clean FORCE

PYTHON ?= python3
ISL ?= 4096
OSL ?= 1024
ARGS ?=
TRUTH ?=
TEST_WORKERS ?= 2

BIN := .venv/bin
named_python := $(if $(filter file,$(origin PYTHON)),,$(PYTHON))
pytest = $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadgroup --no-loadscope-reorder
setup = PYTHON='$(PYTHON)' NAMED_PYTHON='$(named_python)' sh tools/setup_venv.sh
# A broken link or anchor, or a page outside the navigation, fails it (with --quiet nothing would). The variable silences
# an advertisement.
build_site = NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
environment_inputs := pyproject.toml tools/setup_venv.sh $(wildcard constraints/*.txt)

help:
	@echo 'make tune [ISL=4096 OSL=1024] [ARGS="..."]   find the best configuration for a workload'
	@echo 'make test [ARGS="-k name"]                   run the fast test suite'
	@echo 'make test-system                             whole studies, pages in a browser, installations (5 minutes)'
	@echo 'make test-engine                             studies and broken launches against a real vLLM on the CPU (15 minutes at most)'
	@echo 'make soak                                    100 studies under random kills (half an hour and more)'
	@echo 'make check                                   lint, types, import direction, docs'
	@echo 'make docs                                    the documentation as a site, in site/index.html'
	@echo 'make setup | setup-dev                       only create .venv (for use | for development)'
	@echo 'make bench-NAME                              run benchmarks/NAME.py'
	@echo 'make bench-search [TRUTH=path.py]            searches against drawn servers, or against one of your own'
	@echo 'make format | reference                      rewrite the formatting | docs/reference'
	@echo 'make lock PYTHONS="python3.10 ..."           resolve constraints/ anew'
	@echo 'make clean                                   remove .venv, .engine, builds and caches (results/ stays)'
	@echo 'PYTHON=python3.12 chooses the interpreter when .venv is created.'

setup: .venv/.user
	@echo 'advisor: .venv is ready; next: make tune, or .venv/bin/advisor --help'
setup-dev: .venv/.dev
	@echo 'advisor: .venv is ready for development; next: make check test'

.venv/.user: $(environment_inputs)
	@$(setup) user
.venv/.dev: $(environment_inputs)
	@$(setup) dev

# A clone that was copied or moved still points at its old place, and an interpreter that is named is meant.
ifneq ($(shell cat .venv/.made-in 2>/dev/null),$(CURDIR))
.venv/.user .venv/.dev: FORCE
else ifneq ($(named_python),$(if $(named_python),$(shell cat .venv/.made-with 2>/dev/null)))
.venv/.user .venv/.dev: FORCE
endif

tune: .venv/.user
	@$(BIN)/advisor tune --isl $(ISL) --osl $(OSL) --resume $(ARGS)

test: .venv/.dev
	@$(pytest) -m 'not gpu and not engine and not system' $(ARGS)

test-system: .venv/.dev
	@$(pytest) -m system $(ARGS)

test-engine: .venv/.dev
	@sh tools/setup_engine.sh
	@$(BIN)/python -m pytest -m engine tests/engine_real $(ARGS)

soak: bench-soak

check: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tools.check_architecture
	$(BIN)/python -m tools.gen_reference --check
	$(BIN)/python -m tools.check_docs
	$(build_site)

docs: .venv/.dev
	$(build_site)
	@echo 'docs: site/index.html'

format: .venv/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: .venv/.dev
	$(BIN)/python -m tools.gen_reference

lock:
	$(PYTHON) tools/lock_constraints.py $(PYTHONS)

bench-search: .venv/.dev FORCE
	$(BIN)/python -m benchmarks.search $(if $(TRUTH),--truth '$(TRUTH)') $(ARGS)

bench-%: .venv/.dev FORCE
	$(BIN)/python -m benchmarks.$(subst -,_,$*) $(ARGS)

clean:
	rm -rf .venv .engine build dist site .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
