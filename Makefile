# psserve: `make` lists what there is. `make run` and `make test` do all set-up themselves.

SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
# A file of tests stays in one process. They wait as much as they compute: it takes four processes to keep two cores
# busy, and three with fleets, which take turns at starting and 2 GiB each.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest --dist loadfile --no-loadscope-reorder
# A test that fails is run once more and named at the end (RERUN, with the traceback): what fails twice is red, and so is
# the sixth; what fails once wants mending, as a bug of the test or of psserve, but not thousands of others run again.
AGAIN := --reruns 1 --max-suite-reruns 5 --rerun-show-tracebacks
# Every process imports what all its tests import. These import SGLang, which takes long, and run beside the last fleets.
SGLANG := tests/engine tests/zoo/checkpoints/test_quantisation_sglang.py
# With servers: exactness, engine modes, what the tree holds, who shares it.
HAND_OVER := $(patsubst %,tests/e2e/test_%.py,exactness engine_modes cache_purity sharing)
# Those, and what servers and the network do to it: all that must hold with one KV pool for all servers, too.
ONE_POOL := $(HAND_OVER) $(patsubst %,tests/e2e/test_%.py,one_pool negative_controls faults transfer_faults live adapters bases)
export DEVICE PYTHON
# Else each of a hundred processes that tests start compiles psserve anew.
unexport PYTHONDONTWRITEBYTECODE
# Whose kernels `make gpu-compile` compiles: A100, L4 and RTX 40, H100 and H200.
ARCH := 8.0 8.9 9.0

.PHONY: help setup run test test-fast test-bases test-sglang test-axolotl test-shared test-gpu check lint type fmt bench bench-smoke gpu-compile demo-zoo accuracy docs lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: ## make .venv and install everything (DEVICE=cpu|gpu, PYTHON=python3.11)
	@scripts/setup.sh

run: setup ## serve the demo zoo, ./model_zoo, on http://127.0.0.1:30000
	@exec .venv/bin/psserve launch --zoo model_zoo

test: check ## lint, types and all tests
	$(PYTEST) $(AGAIN) --numprocesses 4 $(patsubst %,--ignore %,tests/e2e $(SGLANG))
	$(PYTEST) $(AGAIN) --numprocesses 3 tests/e2e $(SGLANG) -m "not long"

test-fast: setup ## what needs no server and is quick, two minutes (tests/conftest.py says what is slow)
	$(PYTEST) --numprocesses 4 --ignore tests/e2e -m "not slow"

test-bases: setup ## each architecture's whole list against this SGLang, and the table of docs/bases.md from it
	$(PY) scripts/bases.py

test-sglang: setup ## the hand-over's tests on another release of SGLang (VERSION=0.5.22)
	scripts/sglang.sh "$(VERSION)"
	PYTHONPATH="$(CURDIR)/.venv/sglang-$(VERSION)" $(PYTEST) $(AGAIN) --numprocesses 2 tests/engine $(HAND_OVER)

test-axolotl: setup ## the plugin for Axolotl, in Axolotl itself, which is put beside what is installed
	$(PY) -m pip install --quiet --no-deps --target .venv/axolotl --requirement requirements/axolotl.in
	PYTHONPATH="$(CURDIR)/.venv/axolotl" $(PYTEST) tests/training/test_axolotl.py

test-shared: setup ## the suites with servers once more, with one KV pool for all servers (docs/one-pool.md)
	PSSERVE_TEST_TRANSFER=shared $(PYTEST) $(AGAIN) --numprocesses 2 $(ONE_POOL) -m "not long"

test-gpu: setup ## what needs an NVIDIA GPU, and nothing else; all other tests run on the CPU
	$(PY) -m pytest -m gpu

check: lint type ## lint and types, without tests

lint: setup ## ruff: rules and format; import-linter: who may import whom
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	.venv/bin/lint-imports --no-logo --no-cache

type: setup ## mypy --strict
	$(PY) -m mypy

fmt: setup ## let ruff rewrite the files
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: setup ## psserve beside its alternatives on two cores, half an hour (docs/benchmarks.md)
	$(PY) scripts/bench_cpu.py

bench-smoke: setup ## time a small fleet on this machine, some minutes
	$(PY) scripts/bench_smoke.py

gpu-compile: DEVICE := gpu
gpu-compile: setup ## compile the kernels of GPU servers ahead, without a GPU (ARCH="8.0 8.9 9.0")
	$(PY) scripts/gpu_compile.py $(ARCH)

demo-zoo: setup ## train the demo zoo from its seeds into build/demo-zoo/zoo
	$(PY) scripts/demo_zoo.py build/demo-zoo/zoo --work build/demo-zoo

accuracy: setup ## train and compare all ways of fine-tuning model_zoo's base (hours; can be resumed)
	$(PY) scripts/accuracy.py

docs: setup ## write what the program itself knows into docs/: commands, keys of fleet.toml
	$(PY) scripts/docs.py

lock: ## resolve requirements/*.in again (needs uv)
	scripts/lock.sh

clean: ## remove .venv and caches; model_zoo stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find cli psserve tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +
