# Everything a developer does, from a machine with git, make and Python 3.11 or newer. `make` alone lists it.
# The tools come into .tools/ (uv) and .venv/ (the locked dependencies); nothing else on the machine is touched.

UV_VERSION := 0.13.9

# The first Python that is new enough and really starts; `make PYTHON=/path/to/python3.12 ...` takes another.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$python; break; }; done)

UV := .tools/bin/uv
UV_STAMP := .tools/uv-$(UV_VERSION)
STAMP := .venv/.synced

export UV_PYTHON_DOWNLOADS := never
unexport VIRTUAL_ENV

.DEFAULT_GOAL := help
.PHONY: help setup run test check fmt bench bench-scale bench-ingest chaos image-check clean

help: ## list what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## install the locked dependencies; afterwards .venv/bin/relay works
	@echo "Ready: .venv/bin/relay --help"

run: $(STAMP) ## start the relay; without OAA_ variables against its own sandbox, with one sample purchase
	@.venv/bin/relay serve --demo

test: $(STAMP) ## run the default tests, on all cores; ARGS="-k money" picks some, ARGS="-n 0" takes one core
	@.venv/bin/pytest -n logical --dist worksteal $(ARGS)

check: $(STAMP) ## lint, format, types, imports: what CI asks
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/lint-imports

fmt: $(STAMP) ## put the code into its form
	@.venv/bin/ruff format
	@.venv/bin/ruff check --fix

bench: $(STAMP) ## measure the relay beside a bare FastAPI route
	@.venv/bin/python -m bench $(ARGS)

bench-scale: $(STAMP) ## measure two replicas on one PostgreSQL beside one commit a webhook
	@.venv/bin/python -m bench.scale $(ARGS)

bench-ingest: $(STAMP) ## measure batches of events that backends post
	@.venv/bin/python -m bench.ingest $(ARGS)

chaos: $(STAMP) ## kill the relay 200 times under load, and count what arrived
	@.venv/bin/python -m bench.chaos --kills 200 $(ARGS)

image-check: ## build the container image with Buildah and try it; says so and stops where Buildah is missing
	@deploy/build-with-buildah

clean: ## remove the tools, the environment and the caches; var/ stays
	rm -rf .tools .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(UV_STAMP):
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and none was found. Install it, or set PYTHON=." >&2; exit 1; }
	@rm -rf .tools
	@$(PYTHON) -m venv .tools || { echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv." >&2; exit 1; }
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

$(STAMP): $(UV_STAMP) pyproject.toml uv.lock
	@$(UV) sync --locked --quiet --python $(PYTHON)
	@touch $@
