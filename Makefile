# Everything a developer does here. Needs make and Python 3.11 or newer, nothing else.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
# Every program that the tests start would compile all that it imports anew: two and a half seconds each.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# The Terraform provider's own: its framework and the service want different versions of protobuf.
PROVIDER_VENV := terraform/.venv
PROVIDER_STAMP := $(PROVIDER_VENV)/.installed
# What `justiam dev` is given, e.g. make dev ARGS="--port 0 --no-demo"
ARGS ?=
# What pytest is given, e.g. make pytest PYTEST_ARGS="-k escalation"
PYTEST_ARGS ?=
# What pip-audit is given, e.g. another database
AUDIT_ARGS ?=
# Arguments of the benchmark; --help lists them
BENCH_ARGS ?=
# What the endurance run is given
SOAK_ARGS ?=
# Requests of chance for each route and caller, and what the chance is of; a run says its seed when it fails
FUZZ_CASES ?= 100
FUZZ_SEED ?= $(shell date +%s)

# The newest usable Python on the PATH. It is run, not only looked for: a version manager leaves names that start nothing.
FIND_PYTHON = for python in "$${PYTHON:-}" python3.14 python3.13 python3.12 python3.11 python3 python; do \
	if [ -n "$$python" ] && "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then echo "$$python"; exit 0; fi; done; \
	echo "No Python 3.11 or newer with venv and ensurepip on the PATH: install one (Debian, Ubuntu: apt-get install" \
	"python3 python3-venv) or name one, as in: make setup PYTHON=/path/to/python3.12" >&2; exit 1

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: dev
dev: $(STAMP) ## Run the whole service: PostgreSQL, Temporal, worker, API, demo data (ARGS="--port 0 …")
	@$(BIN)/justiam dev $(ARGS)

# Which package of Debian brings each program that the tests look for.
.PHONY: system-packages
system-packages: ## Install what only some tests need and is missing: Chromium, bubblewrap (Debian, Ubuntu; as root)
	@missing=""; \
	command -v chromium google-chrome >/dev/null || [ -n "$${CHROMIUM:-}" ] || missing="$$missing chromium"; \
	command -v bwrap >/dev/null || missing="$$missing bubblewrap"; \
	[ -z "$$missing" ] || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "==> installing for the tests:$$missing"; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y $$missing >/dev/null; \
	else echo "==> not here, so what needs it is not tested: apt-get install$$missing"; fi

.PHONY: test
test: $(STAMP) system-packages ## Run every check that CI runs
	@$(MAKE) format-check lint typecheck audit-dependencies pytest

# With which hashes begin differs from run to run, and the processes that share the tests have to name them alike.
# Three, also where there are two processors: a third of the time some of them wait.
PYTEST = PYTHONHASHSEED=0 $(BIN)/pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

.PHONY: pytest
pytest: $(STAMP) $(PROVIDER_STAMP) ## Run the tests (PYTEST_ARGS="-k …")
	@$(PYTEST) $(PYTEST_ARGS)

.PHONY: quick
quick: $(STAMP) $(PROVIDER_STAMP) ## Run every check but the tests of whole programs: half the time, for while one works
	@$(MAKE) format-check lint typecheck pytest PYTEST_ARGS="--quick $(PYTEST_ARGS)"

.PHONY: coverage
coverage: $(STAMP) ## Run the tests and say what none of them reaches; takes half as long again
	@$(PYTEST) --cov --cov-report=term $(PYTEST_ARGS)

.PHONY: fuzz
fuzz: $(STAMP) ## Send the service what its OpenAPI document makes of chance (FUZZ_CASES=300 FUZZ_SEED=7)
	@$(BIN)/pytest --no-header --timeout=0 --fuzz-as=root,asker,bot,appr,escal,reqs,dir,tasks,anonymous \
		--fuzz-cases=$(FUZZ_CASES) --fuzz-seed=$(FUZZ_SEED) tests/api/test_fuzzing.py

.PHONY: bench
bench: $(STAMP) ## Measure what people run beside its floor and a control (BENCH_ARGS="--repetitions 1 --columns 'on disk'")
	@$(BIN)/python -m bench $(BENCH_ARGS)

.PHONY: bench-rows
bench-rows: $(STAMP) ## Compare reading a record of a million requests with one of 10,000 (BENCH_ARGS="…"); takes many minutes
	@$(BIN)/python -m bench.rows $(BENCH_ARGS)

.PHONY: soak
soak: $(STAMP) ## Run the service for ten minutes while its parts fail, then prove what held (SOAK_ARGS="--minutes 3 --seed 7")
	@$(BIN)/python -m soak $(SOAK_ARGS)

.PHONY: histories
histories: $(STAMP) ## Store histories of this version's workflow, which later versions have to replay
	@$(BIN)/pytest --quiet --no-header tests/workflows/test_replay.py -k happens_now --store-histories

.PHONY: screenshots
screenshots: $(STAMP) system-packages ## Keep pictures of the pages in docs/images
	@$(BIN)/pytest --quiet --no-header tests/web/test_looks.py --store-screenshots

.PHONY: lint
lint: $(STAMP) ## Find mistakes (ruff, all rules but the explained exceptions)
	@$(BIN)/ruff check

.PHONY: format
format: $(STAMP) ## Format the code and mend what can be mended
	@$(BIN)/ruff check --fix --exit-zero --quiet
	@$(BIN)/ruff format

.PHONY: format-check
format-check: $(STAMP)
	@$(BIN)/ruff format --check

.PHONY: typecheck
typecheck: $(STAMP) $(PROVIDER_STAMP) ## Check the types (mypy, strict)
	@$(BIN)/mypy
	@cd terraform && ../$(BIN)/mypy --python-executable .venv/bin/python

.PHONY: audit-dependencies
audit-dependencies: $(STAMP) ## Look for known vulnerabilities in what is locked (AUDIT_ARGS="--vulnerability-service osv")
	@$(BIN)/python requirements/audit.py $(AUDIT_ARGS)

.PHONY: setup
setup: $(STAMP) ## Make the environment in .venv

# uv installs in seconds what takes pip most of a minute; where it cannot (an index that only pip is told of), pip does.
$(STAMP): requirements/bootstrap.txt requirements/dev.txt pyproject.toml
	@python="$$($(FIND_PYTHON))"; \
	echo "==> $(VENV): $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV)
	@echo "==> $(VENV): installing the locked dependencies"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@$(BIN)/uv pip install --quiet --compile-bytecode --system-certs --python $(BIN)/python --require-hashes -r requirements/dev.txt || { \
		echo "==> $(VENV): uv could not; pip does it, in about a minute"; \
		$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r requirements/dev.txt; }
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation \
		--config-settings editable_mode=compat -e .
	@touch $(STAMP)
	@echo "==> $(VENV): ready"

.PHONY: terraform-provider
terraform-provider: $(PROVIDER_STAMP) ## Install the Terraform provider where terraform and tofu find it
	@echo "==> $$($(PROVIDER_VENV)/bin/python -m justiam_provider.install)"

.PHONY: terraform-docs
terraform-docs: $(PROVIDER_STAMP) ## Write the pages of docs/terraform anew, from the provider's schema
	@$(PROVIDER_VENV)/bin/python -m justiam_provider.documentation docs/terraform examples

$(PROVIDER_STAMP): $(STAMP) terraform/requirements.txt terraform/pyproject.toml
	@echo "==> $(PROVIDER_VENV): the Terraform provider and its locked dependencies"
	@$(BIN)/python -m venv --clear $(PROVIDER_VENV)
	@$(BIN)/uv pip install --quiet --compile-bytecode --system-certs --python $(PROVIDER_VENV)/bin/python --require-hashes \
		-r terraform/requirements.txt || \
		$(PROVIDER_VENV)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r terraform/requirements.txt
	@$(PROVIDER_VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation \
		--config-settings editable_mode=compat -e terraform
	@touch $(PROVIDER_STAMP)

# Written for every platform and Python that the project supports, with hashes, and naming no index.
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-header --upgrade

.PHONY: lock
lock: $(STAMP) ## Lock the newest dependencies that fit into requirements/
	@$(COMPILE) requirements/bootstrap.in --output-file requirements/bootstrap.txt
	@$(COMPILE) pyproject.toml --output-file requirements/runtime.txt
	@$(COMPILE) pyproject.toml --all-extras --constraints requirements/runtime.txt --output-file requirements/dev.txt
	@$(COMPILE) terraform/pyproject.toml --all-extras --output-file terraform/requirements.txt

.PHONY: clean
clean: ## Remove what was built; keeps the data of `make dev` (.justiam)
	@rm -rf $(VENV) $(PROVIDER_VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* htmlcov
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
