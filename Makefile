# Two commands: `make report` (the main job on a real model) and `make test` (lint, types, tests).
# Each sets up its own .venv first; only Python >= 3.11 and git are needed beforehand.
# While working on one room: `make test-fast ROOM=recovery` (or ROOM=studies/audit).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RESULTS ?= results
ROOM ?= ground
# Hub access is never needed: the model and the texts ship inside pinned wheels.
export HF_HUB_OFFLINE ?= 1

.PHONY: report figures test test-fast fuzz docs lint clean
.DELETE_ON_ERROR:

report: $(VENV)/.installed-llm
	$(BIN)/python -m paper_checks.report --out $(RESULTS)/report

# All figures again from stored tables: those of `make report` and of the experiments that were run.
figures: $(VENV)/.installed-llm
	$(BIN)/python -m figures --results $(RESULTS) --out $(RESULTS)/figures

# Tests that are still waiting move from a busy worker to an idle one: neither waits at the end.
test: $(VENV)/.installed-llm $(VENV)/.installed-cluster $(VENV)/.installed-bench $(VENV)/.installed-docs $(VENV)/.installed-dev lint
	$(BIN)/python -m pytest -n 2 --dist worksteal tests

test-fast: $(VENV)/.installed-llm $(VENV)/.installed-cluster $(VENV)/.installed-bench $(VENV)/.installed-docs $(VENV)/.installed-dev lint
	$(BIN)/python -m pytest -n 2 --dist worksteal tests/$(ROOM)

# Damaged files for every reader, for ten minutes; those that break one are kept in results/fuzz.
fuzz: $(VENV)/.installed-llm $(VENV)/.installed-cluster $(VENV)/.installed-bench $(VENV)/.installed-dev
	$(BIN)/python -m tests.fuzz --seconds 600

# The site: results/site/index.html opens without a server, and searches too.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir $(abspath $(RESULTS))/site

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: run make PYTHON=/path/to/a/newer/python" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

# One stamp per extra, so that `make report` does not install the test tools.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV) $(RESULTS) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
