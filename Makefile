# Set-up and the main jobs. A machine needs Python >= 3.11 and make; everything else is installed here.
PYTHON ?= python3
BIN := .venv/bin
WORKDIR ?= runs/quickstart
# Large temporaries are page-faulted anew on every call without huge pages: 1.2 to 2 times on CPU.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
# Two processes that share the tests file by file: half of their time is compiling, on one core each.
PARALLEL ?= -n 2 --dist loadfile
# A folder a commit: rounds of different code are not put together.
BENCH ?= runs/bench/$(shell git describe --always --dirty)

.PHONY: quickstart test test-all mutants lint venv bench elsewhere

quickstart: .venv/.core
	$(BIN)/python -m experiments.quickstart --config=configs/quickstart.py --workdir=$(WORKDIR)

test: .venv/.test
	$(BIN)/python -m pytest $(PARALLEL)

test-all: .venv/.test
	$(BIN)/python -m pytest $(PARALLEL) -m ''
	$(BIN)/python tests/mutants.py

mutants: .venv/.test
	$(BIN)/python tests/mutants.py

lint: .venv/.test
	$(BIN)/ruff check .

# All steps compiled for a TPU and an H100 that are not here (5 GB of compilers, minutes).
elsewhere: .venv-elsewhere/.done
	.venv-elsewhere/bin/python -m pytest -m '' tests/run/test_elsewhere.py

.venv-elsewhere/.done: setup.py constraints.txt
	test -x .venv-elsewhere/bin/python || $(PYTHON) -m venv .venv-elsewhere
	.venv-elsewhere/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,tpu,gpu]'
	touch $@

# Ours against others on this machine, which must have nothing else to do: two hours and more. The others'
# environments are made in .venv-bench by the first benchmark that wants them (four, some GB each); torch
# compiles with a C++ compiler, and contenders in turn take up to 24 GiB.
bench: quickstart
	$(BIN)/python -m experiments.benchmarks.generation --workdir=$(BENCH)/generation
	$(BIN)/python -m experiments.benchmarks.generation --workdir=$(BENCH)/generation --dtype bfloat16
	$(BIN)/python -m experiments.benchmarks.preference --workdir=$(BENCH)/preference
	$(BIN)/python -m experiments.benchmarks.ppo --workdir=$(BENCH)/ppo
	$(BIN)/python -m experiments.benchmarks.vectorised --workdir=$(BENCH)/vectorised
	$(BIN)/python -m experiments.benchmarks.ladder --workdir=$(BENCH)/ladder
	$(BIN)/python -m experiments.benchmarks.start --workdir=$(BENCH)/start --inputs=$(WORKDIR)

venv: .venv/.test

.venv/.core: setup.py constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/.test: .venv/.core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@
