# Everything that a fresh checkout needs. Only Python 3.11+, make and gcc must be there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PEERS := .venv-peers
# How many processes run tests.
JOBS ?= logical

.DEFAULT_GOAL := help
.PHONY: help demo test test-peers test-docker check bench clean

help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/make \1\t\2/' | expand -t 16

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Arena needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all,dev]'
	@touch $(READY)

demo: $(READY) ## Play real text games: an expert and a random player, a transcript, and a replay of every episode
	$(BIN)/arena run textworld-quickstart --out runs/demo-$$(date +%Y%m%d-%H%M%S) --show
	$(BIN)/arena replay $$(ls -td runs/demo-* | head -n 1)

check: $(READY) ## Style, types and import direction
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict arena envs agents
	@# The import checker reads files, so it is shown the tree as it installs: everything below arena/.
	rm -rf build/layout && mkdir -p build/layout && cp -r arena build/layout/ && cp -r envs agents scenarios build/layout/arena/
	cd build/layout && $(abspath $(BIN))/lint-imports --no-cache --config ../../pyproject.toml

test: check ## Everything in `check`, then all tests but the slow ones and those that need Docker
	$(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 --dist worksteal

# An environment of its own for each peer: its pins are not ours.
$(PEERS)/%/.ready: tests/peers/requirements-%.txt
	$(PYTHON) -m venv $(PEERS)/$*
	$(PEERS)/$*/bin/python -m pip install --quiet --upgrade pip
	$(PEERS)/$*/bin/python -m pip install --quiet -r $<
	@touch $@

.PRECIOUS: $(PEERS)/%/.ready

test-peers: $(READY) $(PEERS)/openenv/.ready $(PEERS)/mcp/.ready $(PEERS)/trl/.ready $(PEERS)/swebench/.ready ## The official `openenv`, `mcp`, `trl` and `swebench` packages with real servers, environments and verdicts
	$(BIN)/python -m tests.peers.run $(foreach peer,openenv mcp trl swebench,$(peer)=$(abspath $(PEERS)/$(peer)/bin/python))

test-docker: $(READY) ## Build the image on a daemon of its own and play against the container (needs root)
	$(BIN)/python -m pytest -m docker tests/docker

bench: $(READY) ## What sessions, the runner and the server cost; the server beside OpenEnv's; both ALFWorld engines; training beside BenchMARL and TRL; /retrieve
	$(BIN)/python benchmarks/session_overhead.py
	$(BIN)/python -m benchmarks.server
	$(BIN)/python -m benchmarks.alfworld
	$(BIN)/python -m benchmarks.marl
	$(BIN)/python -m benchmarks.search
	$(BIN)/python -m benchmarks.trainer_speed

clean: ## Remove the virtual environment and what tools left behind
	rm -rf $(VENV) $(PEERS) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info build
