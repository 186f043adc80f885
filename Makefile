# Two commands set everything up on a machine with make and Python 3.11: `make demo`, `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Torch alone first: a build that is already right (a CPU build, say) is then left in place.
TORCH := $(shell sed -n 's/^\(torch==.*\)/\1/p' constraints.txt)
LOWEST := .venv-lowest
AUDIT := .venv-audit
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
# How many processes share the tests; a file's tests stay in one of them, with their fixtures.
PROCESSES ?= 2
MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
# In the order of folders: by number of tests, the few that take long would come last, and alone.
PYTEST := -m pytest -q -n $(PROCESSES) --dist loadfile --no-loadscope-reorder
# What the demo needs: the package alone, or the developers' environment where there is one.
RUNS := $(VENV)/.$(if $(wildcard $(VENV)/.installed),installed,package)

# Puts what $(1) names into the environment, with the releases of constraints.txt.
define install
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "amnesis needs Python 3.11 or newer; say make PYTHON=python3.11")'
test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
$(BIN)/python $(PIP_INSTALL) $(TORCH)
$(BIN)/python $(PIP_INSTALL) -e '$(1)' -c constraints.txt
touch $@
endef

.PHONY: demo test quick constraints lock audit lower-bounds check docs release setup clean

demo: $(RUNS)
	$(BIN)/amnesis demo

# Everything, with the coverage that pyproject.toml demands and the slowest tests by name.
test: setup
	$(BIN)/python $(PYTEST) --cov --durations=15

# What is not marked slow: a minute or two, for who works on one room.
quick: setup
	$(BIN)/python $(PYTEST) -m "not slow"

# Pins every release that is installed, after the tests have passed with it.
constraints: setup
	( sed -n 1p constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//' ) > constraints.new
	mv constraints.new constraints.txt
	touch $(VENV)/.installed

# The hashes of those releases' files, on CI's platform; after `make constraints`.
lock: setup
	$(BIN)/python .ci/lock.py write

# Whether what is installed is what was locked, file by file; then the known vulnerabilities of it.
# The auditor has an environment of its own: what it brings is none of ours.
audit: setup
	$(BIN)/python .ci/lock.py check
	test -x $(AUDIT)/bin/pip-audit || { $(PYTHON) -m venv $(AUDIT) && $(AUDIT)/bin/python $(PIP_INSTALL) 'pip-audit>=2.10'; }
	$(AUDIT)/bin/python .ci/lock.py audit

# The fast tests with the oldest releases that pyproject.toml claims.
lower-bounds: $(LOWEST)/.installed
	$(LOWEST)/bin/python $(PYTEST) -m "not slow"

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MKDOCS)

# The documentation site, into site/; a broken link fails. `$(BIN)/python -m mkdocs serve` shows it.
docs: setup
	$(MKDOCS)

# sdist and wheel of the commit that is tagged, into dist/; refused where anything is amiss.
release: setup
	$(BIN)/python .ci/release.py

setup: $(VENV)/.installed

# Reinstalled whenever dependencies or entry points change.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(call install,.[dev])

$(VENV)/.package: pyproject.toml constraints.txt
	$(call install,.)

$(LOWEST)/.installed: pyproject.toml .ci/lowest.py
	$(PYTHON) -m venv --clear $(LOWEST)
	$(PYTHON) .ci/lowest.py > $(LOWEST)/lowest.txt
	$(LOWEST)/bin/python $(PIP_INSTALL) $$(grep '^torch==' $(LOWEST)/lowest.txt)
	$(LOWEST)/bin/python $(PIP_INSTALL) -e '.[dev]' -c $(LOWEST)/lowest.txt
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) $(AUDIT) .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis
