# Every verb sets up what it needs: a virtual environment in .venv with uv and the locked dependencies.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup lock demo test unit check up bench sim sim-mutants endure crash fuzz clean

help: ## show these verbs
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

setup: $(READY) ## create .venv with the locked dependencies

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python {v[0]}.{v[1]} is too old: Treadle needs 3.11 or newer. Name one: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "The venv module is missing: apt-get install python3-venv" >&2; rm -rf .venv; exit 1; }
	@echo "Setting up .venv (locked dependencies)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep -o '^uv==[0-9.]*' requirements.lock)"
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $(READY)

lock: ## resolve pyproject.toml again into requirements.lock
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --no-header --no-emit-index-url --extra dev pyproject.toml -o requirements.lock

demo: $(READY) ## run the thumbnail job on real pictures, end to end
	@$(BIN)/python -m examples.demo

up: $(READY) ## start a server in the foreground
	@$(BIN)/treadle up

check: $(READY) ## ruff and strict types
	@$(BIN)/ruff check src tests examples docs benchmarks
	@$(BIN)/mypy
	@$(BIN)/mypy examples docs/make_lifecycle.py
	@$(BIN)/mypy -p benchmarks

unit: $(READY) ## the tests that start no process
	@$(BIN)/pytest -q -m "not process and not e2e" -n 2

test: unit ## all tests, the fast ones first
	@$(BIN)/pytest -q -m "process and not e2e" -n 2
	@$(BIN)/pytest -q -m e2e -n 2 --dist loadfile

bench: $(READY) ## measure; RUNS=3 ONLY=accept,drain QUICK=1 JSON=FILE PEERS="huey celery" (docs/benchmarks.md)
	@$(BIN)/python -m benchmarks.bench $(if $(RUNS),--runs $(RUNS)) $(if $(ONLY),--only $(ONLY)) \
		$(if $(QUICK),--quick) $(if $(JSON),--json $(JSON)) $(if $(PEERS),--peers "$(PEERS)")

sim: $(READY) ## simulate; SEEDS=10000 SECONDS=120, or SEED=17 STEPS=1-9,40 to run one again
	@PYTHONPATH=tests $(BIN)/python -m simulation.campaign $(if $(SEEDS),--seeds $(SEEDS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(STEPS),--steps $(STEPS)) $(if $(SECONDS),--seconds $(SECONDS))

sim-mutants: $(READY) ## show that the simulation catches deliberate bugs
	@PYTHONPATH=tests $(BIN)/python -m simulation.mutants

endure: $(READY) ## half an hour of load with kills: does the server stay as it is? MINUTES=30 SEED=17 JSON=FILE
	@$(BIN)/python -m benchmarks.endure $(if $(MINUTES),--minutes $(MINUTES)) $(if $(SEED),--seed $(SEED)) \
		$(if $(JSON),--json $(JSON))

crash: $(READY) ## kill, stop, cut off and rob real processes under load; SECONDS=600 COUNT=3 SEED=7 ROUND=12 ROUNDS=kills,power JSON=FILE
	@PYTHONPATH=tests $(BIN)/python -m crash.campaign $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) \
		$(if $(ROUND),--round $(ROUND)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(KILLS),--kills $(KILLS)) \
		$(if $(COUNT),--count $(COUNT)) $(if $(DEEDS),--deeds $(DEEDS)) $(if $(JSON),--json $(JSON))
fuzz: $(READY) ## try bad input for minutes, by chance; TIMES=30 times as much as CI does
	@FUZZ=$(or $(TIMES),30) $(BIN)/pytest -q tests/fuzz -n 2 --timeout=1800

clean: ## remove .venv and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
