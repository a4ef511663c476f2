# Everything runs in .venv, which is made on first use. `make test PYTHON=python3.13` picks the interpreter.
# The recipes name the environment's programs through its python: a script's first line breaks when a folder is moved.

PY := .venv/bin/python
STAMP := .venv/.installed
CODE := $(wildcard readonly adapters demo_app)
BENCHMARKS := $(wildcard tests/benchmarks/test_*.py)
# Raised as the project grows, never lowered.
COVERAGE_MINIMUM := 90
# How many processes share the tests of `make test` (0: none, one test after the other). One more than there are cores:
# tests wait for servers more than they work.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
MYPY_TESTS := --cache-dir .mypy_cache/tests --allow-any-generics --allow-untyped-calls --allow-untyped-decorators \
	--allow-subclassing-any --no-warn-return-any --no-warn-unused-ignores

export PIP_ROOT_USER_ACTION = ignore
# Hundreds of processes import the same files: each would compile them again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help install format lint test test-newest pytest bench faults model conformance torture wheel-test demo demo-postgres serve clean

help:
	@echo "make test        lint, types, import contracts, all tests with coverage, benchmarks, the built wheel"
	@echo "                 WORKERS=4 processes share the tests; 0: one after the other, as make pytest ARGS=... does"
	@echo "make test-newest the adapters' tests on the newest Python here, above 3.11"
	@echo "make demo        the demo site is switched under load; prints what the clients saw"
	@echo "make demo-postgres  two migrations hold a lock for ten seconds each: without and with a frozen standby"
	@echo "make serve       the demo site with two worker processes; both take FRAMEWORK=flask or django"
	@echo "make lint        ruff, mypy, import contracts        make format   let ruff rewrite"
	@echo "make bench       the tables of costs                 make wheel-test   the built wheel alone"
	@echo "make faults      servers and processes are killed, stopped and cut off for ten minutes, and a checker reads"
	@echo "make model       every reachable state of the protocol's model"
	@echo "make conformance every framework under every server, asked the same; writes the table of docs/conformance.md"
	@echo "make torture     writers of every kind against every kind of fence, fifty rounds each, judged by the"
	@echo "                 server's log; and a run that is killed at every step, gone on with and given up"
	@echo "make clean       remove the environment, builds and caches"

# A wish for another interpreter is looked at on every run; without one, only a changed pyproject.toml installs again.
install: $(STAMP)
ifdef PYTHON
	@test "$$($(PYTHON) -c 'import sys; print(sys.version_info[:3])')" = "$$($(PY) -c 'import sys; print(sys.version_info[:3])')" \
		|| sh .ci/venv "$(PYTHON)"
endif
	@$(PY) -c '' 2>/dev/null && test "$$(cat $(STAMP))" = "$$($(PY) -c 'import sys; print(sys.executable)')" \
		|| sh .ci/venv "$(PYTHON)"

$(STAMP): pyproject.toml .ci/venv
	@sh .ci/venv "$(PYTHON)"

format: install
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

lint: install
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	@echo "$(PY) -m mypy $(CODE); $(PY) -m mypy tests $(MYPY_TESTS)  (side by side)"
	@$(PY) -m mypy $(CODE) & code=$$!; \
	status=0; $(PY) -m mypy tests $(MYPY_TESTS) || status=1; wait $$code || status=1; exit $$status
	$(PY) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()' --no-logo

# The benchmarks come first and without coverage, which would be most of what they measured; their failure is
# reported at the end, so that it hides no other. Two processes share them: the longest waits for most of its time, and
# all count a process's own seconds. Meanwhile the tests are compiled once; else each worker would compile them all.
test: lint
	@rm -rf .coverage-data && mkdir .coverage-data
	@$(PY) -m pytest --collect-only -q >/dev/null 2>&1 & compiled=$$!; \
	status=0; \
	$(if $(BENCHMARKS),$(PY) -m pytest tests/benchmarks -m bench -q --no-header --numprocesses 2 --dist loadfile || status=1;) \
	wait $$compiled || true; \
	$(PY) -m coverage run -m pytest --numprocesses $(WORKERS) --dist loadfile || status=1; \
	$(PY) -m coverage combine -q || status=1; \
	$(PY) -m coverage report --ignore-errors --include='readonly/*,adapters/*' --fail-under=$(COVERAGE_MINIMUM) || status=1; \
	if [ $$status -ne 0 ]; then echo "make test: FAILED, see above" >&2; fi; \
	exit $$status

pytest: install
	$(PY) -m pytest $(ARGS)

ifneq ($(BENCHMARKS),)
bench: install
	READONLY_TEST_BENCH=full $(PY) -m pytest tests/benchmarks -m bench -s --no-header
endif

# Adapters once more, on the newest Python that is found: some frameworks' newest releases need it.
# (From 3.13 on a connection of sqlite3 that is left to the collector says so; tests leave the engines of their
# applications to it.)
test-newest:
	@sh .ci/newest "$(NEWEST)"
	.venv-newest/bin/python -m pytest tests/adapters --numprocesses $(WORKERS) --dist loadfile -p no:cacheprovider \
		-W "ignore:unclosed database:ResourceWarning"

# The long suites, by hand: SECONDS=600 SEED=1 make faults. Both end with 1 if anything broke. A minute or more of it is
# with clocks that are set for real; where libfaketime is missing that is said.
faults: install
	$(PY) -m tests.faults --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED))
	$(PY) -m tests.faults --faketime --seconds $(or $(FAKETIME_SECONDS),120) $(if $(SEED),--seed $(SEED))

model: install
	$(PY) -m tests.model

# ARGS="--server hypercorn --site flask --scenario exempt" runs a part of it.
conformance: install
	$(PY) -m tests.conformance $(ARGS)

torture: install
	$(PY) -m tests.torture --rounds $(or $(ROUNDS),50) $(ARGS)
	READONLY_TEST_EACH_WAY=1 $(PY) -m pytest tests/run/test_killed.py

# A part of `make test` as well: builds the wheel, installs it beside no framework at all, runs what can run there.
wheel-test: install
	$(PY) -m pytest tests/packaging

ifneq ($(wildcard demo_app/demo.py),)
demo: install
	$(PY) -m demo_app.demo $(if $(FRAMEWORK),--framework $(FRAMEWORK))
endif

ifneq ($(wildcard demo_app/postgres/demo.py),)
demo-postgres: install
	$(PY) -m demo_app.postgres.demo $(ARGS)
endif

ifneq ($(wildcard demo_app/serve.py),)
serve: install
	$(PY) -m demo_app.serve $(if $(FRAMEWORK),--framework $(FRAMEWORK))
endif

clean:
	rm -rf .venv .venv-newest build dist .coverage .coverage-data .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
