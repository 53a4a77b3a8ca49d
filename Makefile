# make demo   sets everything up, runs the main job on this machine, prints the results and the report's path
# make test   sets everything up, then lints, types, layers and tests: units, repository, Ray smoke, the program
# make test-nightly   the rest: see below
# make test-cluster   strikes real clusters of several nodes on this machine, and sees that runs survive it
# make lock   writes requirements-dev.lock after a change of dependencies; `make clean lock` takes the newest releases

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread a process: the work is spread over processes, and oversubscribed torch has been 100 times slower.
export OMP_NUM_THREADS ?= 1
export RAY_USAGE_STATS_ENABLED := 0
export SDL_VIDEODRIVER := dummy

NIGHTLY := coverage nightly unit-settings test-cluster

.PHONY: demo test test-nightly $(NIGHTLY) lint unit ray e2e install lock clean

demo: install
	$(BIN)/phaseb run --config configs/demo.yaml

# Tests on Ray and of the program mostly wait for processes to start, which they can do side by side.
test: install lint unit
	$(MAKE) --no-print-directory --jobs=2 ray e2e

# Everything that is too long for every change. All parts run, also where one fails:
#   coverage        the unit tests once, with the coverage of each module printed
#   nightly         tests marked `nightly`: the kill matrix, the flywheel, examples and the notebook, what data is
#                   worth, wheels, Ray workers and replay shards that are killed, several processes against one
#   unit-settings   the unit tests under each setting of torch's and numpy's kernels and of the number of threads
#   test-cluster    clusters of several nodes: killed workers, nodes, heads and drivers, full disks, lost storage
test-nightly: install
	$(MAKE) --no-print-directory --keep-going $(NIGHTLY)

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml requirements-dev.lock
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint requirements-dev.lock --editable ".[dev]"
	touch $@

# Without the constraints of the old lock. A torch build (+cpu, +cu130) is of one machine: the lock names the release.
lock:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m pip freeze --all --exclude pip --exclude-editable > $(VENV)/freeze.txt
	{ grep '^#' requirements-dev.lock; sed 's/+.*//' $(VENV)/freeze.txt; } > $(VENV)/requirements-dev.lock
	mv $(VENV)/requirements-dev.lock requirements-dev.lock
	touch $(VENV)/.installed

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: install
	$(BIN)/python -m pytest -n 2 -m "not nightly" --durations=20 tests/unit tests/repo

ray: install
	$(BIN)/python -m pytest -m "not nightly" --durations=20 tests/ray

e2e: install
	$(BIN)/python -m pytest -m "not nightly" --durations=20 tests/e2e

coverage: install
	$(BIN)/python -m pytest -n 2 --cov=phaseb --cov-report=term:skip-covered tests/unit tests/repo

nightly: install
	$(BIN)/python -m pytest -m nightly --durations=20 tests/repo tests/ray tests/e2e

unit-settings: install
	.ci/unit-settings

test-cluster: install
	$(BIN)/python -m pytest tests/cluster

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache .coverage
