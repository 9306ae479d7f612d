# Two commands on a fresh machine: `make demo` and `make test`. Each makes the environment it needs in .venv.
PYTHON ?= python3
VENV ?= .venv
# `make test-floors` needs the oldest Python: the oldest releases of the dependencies have no wheels for the newest.
FLOORS_PYTHON ?= python3.10
FLOORS := .venv-floors
BIN := $(VENV)/bin
# The tests run in two processes; more threads than cores would only slow them down.
# Threads that wait without spinning: on a machine that does something else as well, spinning ones make a run several times slower.
DEMO := OMP_WAIT_POLICY=passive $(BIN)/python examples
BENCH := $(BIN)/python tests/benchmarks
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: demo demo-compare test test-transformers test-all test-floors attack bench bench-growth style address clean

demo: $(VENV)/.installed-demo
	$(DEMO)/demo.py demo

demo-compare: $(VENV)/.installed-demo
	$(DEMO)/compare_tasks.py demo-compare

test: $(VENV)/.installed
	$(PYTEST) -m "not slow"

test-transformers: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/transformers_suite/run.py -n 2

test-all: $(VENV)/.installed
	$(PYTEST)

# The fast tests with the oldest versions that setup.cfg allows.
test-floors: $(FLOORS)/.installed
	OMP_NUM_THREADS=1 $(FLOORS)/bin/python -m pytest -n 2 --dist loadfile -m "not slow"

# Damaged and hostile inputs, at every place that reads what a stranger may have written; prints a table of the outcomes.
ATTACK_SECONDS ?= 600
attack: $(VENV)/.installed
	$(BIN)/python tests/attack/run.py --seconds $(ATTACK_SECONDS)

# The processor's set in about twenty minutes on two cores, most of them to compile; nothing else should run meanwhile.
bench: $(VENV)/.installed-bench
	$(BENCH)/bench_step.py --batch 4 --repeats 2
	$(BENCH)/bench_loss.py --repeats 3
	$(BENCH)/bench_views.py
	$(BENCH)/bench_inference.py --repeats 5
	$(BENCH)/bench_startup.py --repeats 5
	$(BENCH)/report.py

bench-growth: $(VENV)/.installed-bench
	$(BENCH)/bench_growth.py
	$(BENCH)/report.py

style: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The address of the project, in every file that names it: make address ADDRESS=https://github.com/NAME/esvit
# The cards in model_cards/ follow with `python training/published_cards.py`.
address:
	test -n "$(ADDRESS)"
	old=$$(sed -n 's/^url = //p' setup.cfg) && sed -i.old "s|$$old|$(ADDRESS)|g" setup.cfg README.md CITATION.cff examples/walkthrough.ipynb
	rm setup.cfg.old README.md.old CITATION.cff.old examples/walkthrough.ipynb.old

clean:
	rm -rf $(VENV) $(FLOORS) .cache build *.egg-info

$(VENV)/.installed-demo: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[training,examples,demo]"
	touch $@

$(VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[training,examples,demo,dev]"
	touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable ".[bench,int8]"
	touch $@

$(FLOORS)/.installed: setup.cfg pyproject.toml tests/floors.py
	$(FLOORS_PYTHON) -m venv $(FLOORS)
	$(FLOORS)/bin/python tests/floors.py > $(FLOORS)/constraints.txt
	$(FLOORS)/bin/python -m pip install --quiet --constraint $(FLOORS)/constraints.txt --editable ".[training,examples,demo,dev]"
	touch $@
