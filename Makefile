# make reproduce | make test | make check | make bench
#
# Each sets up what it needs in $(VENV), once, from Python >= 3.11 and nothing else.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= results
RUNS ?= 20
INSTANCES ?= 10000
DATASET ?= mnist
TESTS ?= tests
PYTEST := pytest -n auto --maxprocesses 4 --dist loadfile --durations 40 --durations-min 3
MUTANTS ?=
BENCH ?=
BENCH_SWEEP ?=
BENCH_PEERS ?=
BENCH_MEMORY ?=
BENCH_TIMES ?=
# Beside what commands are timed; PEERS= leaves that out.
PEERS ?= $(VENV)-peers/.libraries

.PHONY: help reproduce report test test-slow test-newest mutants tour check format bench docs constraints clean

help:
	@echo "make reproduce   the theory verified, and the MNIST experiment: records, tables, figures in $(OUT)/"
	@echo "make report      one page of what is recorded in $(OUT)/: the paper's claims, verdicts, figures, data"
	@echo "make test        the test suite, without what takes minutes"
	@echo "make test-slow   the tests that take minutes"
	@echo "make test-newest the test suite on the newest releases of everything, under the newest Python here"
	@echo "make mutants     deliberate errors in theory/, each of which a test must catch"
	@echo "make check       formatting, lint, types, import layers"
	@echo "make bench       speed and memory on this machine"
	@echo "make format      put the source in its format"
	@echo "make docs        write docs/report.html, and the tables and numbers of all documents, from docs/data and the types"
	@echo "make tour        run docs/tour.ipynb from top to bottom and keep what its cells give"
	@echo "make constraints pin what pip installs today"
	@echo "variables: PYTHON, VENV, OUT, RUNS, INSTANCES, DATASET, TESTS, MUTANTS, BENCH, BENCH_SWEEP, BENCH_MEMORY, BENCH_TIMES, BENCH_PEERS (options of mutants and benchmarks), PEERS (empty: no PyTorch)"

reproduce: $(VENV)/.core
	$(BIN)/sublab reproduce --runs $(RUNS) --instances $(INSTANCES) --dataset $(DATASET) --out $(OUT)

report: $(VENV)/.core
	$(BIN)/sublab report --out $(OUT)

test: $(VENV)/.dev
	$(BIN)/python -m $(PYTEST) $(TESTS)

# Status 5 is pytest's for no test: none of those named is slow.
test-slow: $(VENV)/.dev
	$(BIN)/python -m $(PYTEST) -m slow $(TESTS) || [ $$? -eq 5 ]

test-newest: $(VENV)-newest/.dev
	$(VENV)-newest/bin/python -m $(PYTEST) $(TESTS)

mutants: $(VENV)/.dev
	$(BIN)/python -m tests.mutants $(MUTANTS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.core $(PEERS)
	$(BIN)/python -m benchmarks.toy $(BENCH)
	$(BIN)/python -m benchmarks.theory
	$(BIN)/python -m benchmarks.sweep $(BENCH_SWEEP)
	$(BIN)/python -m benchmarks.filters
	$(BIN)/python -m benchmarks.sampling
	$(BIN)/python -m benchmarks.memory $(BENCH_MEMORY)
	$(BIN)/python -m benchmarks.timetable $(BENCH_TIMES)
	$(if $(PEERS),$(BIN)/python -m benchmarks.peers --python $(VENV)-peers/bin/python $(BENCH_PEERS))

docs: $(VENV)/.core
	$(BIN)/sublab results fill README.md docs/*.md
	$(BIN)/sublab report --from docs/data --to docs/report.html

tour: $(VENV)/.dev
	$(BIN)/python -m tests.tour

constraints:
	$(PYTHON) -m venv $(VENV)-constraints
	$(VENV)-constraints/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-constraints/bin/python -m pip install --quiet -e ".[dev]"
	$(VENV)-constraints/bin/python -m pip freeze --exclude-editable > constraints.txt
	rm -rf $(VENV)-constraints

clean:
	rm -rf $(VENV) $(VENV)-newest $(VENV)-peers .cache .pytest_cache .ruff_cache .import_linter_cache

$(VENV)/.core: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "subliminal-lab needs Python 3.11 or newer, and $(PYTHON) is not; name one: make PYTHON=..." >&2; exit 1; }
	@echo "setting up $(VENV), once: about 1 GB, a minute or some more"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "cannot make a virtual environment (on Debian: apt install python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[report]"
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	@echo "adding the test and check tools to $(VENV), once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

# What commands are timed beside, and nothing that the project needs.
$(VENV)-peers/.libraries:
	@echo "setting up $(VENV)-peers with PyTorch and transformers, once; this may be gigabytes"
	@$(PYTHON) -m venv $(VENV)-peers
	@$(VENV)-peers/bin/python -m pip install --quiet --disable-pip-version-check torch numpy transformers peft
	@touch $@

# No constraints: what pip installs today.
$(VENV)-newest/.dev: pyproject.toml
	@echo "setting up $(VENV)-newest; this takes about two minutes"
	@rm -rf $(VENV)-newest
	@newest=$$(.ci/newest-python) && $$newest -m venv $(VENV)-newest
	@$(VENV)-newest/bin/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@
