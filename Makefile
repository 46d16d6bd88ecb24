# Each target makes .venv and installs all that it needs.
PYTHON ?= python3
BIN := .venv/bin
DEMO ?= demo

.PHONY: demo test test-all check bench bench-read-once
demo: .venv/train
	$(BIN)/aesr1 demo -o $(DEMO)

# Tests run in two processes with one thread each: with more threads they only wait for each other.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist worksteal --durations=10

test: check .venv/browser
	$(PYTEST) -m 'not slow'

test-all: check .venv/browser
	$(PYTEST)

check: .venv/dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/train
	$(BIN)/python bench/rewards.py
	$(BIN)/python bench/overhead.py
	$(BIN)/python bench/imports.py

# Takes half an hour; nothing else should run on the machine.
bench-read-once: .venv/train
	$(BIN)/python bench/read_once.py
	$(BIN)/python bench/read_once_scoring.py
	$(BIN)/python bench/rewards.py

.venv/bin/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --upgrade pip

.venv/train: .venv/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install -q -c constraints.txt -e '.[train]'
	touch $@

.venv/dev: .venv/bin/pip pyproject.toml constraints.txt
	$(BIN)/pip install -q -c constraints.txt -e '.[train,data,serve,dev]'
	touch $@

# The pages are tested in a real browser. Where it cannot be installed those tests are skipped.
.venv/browser: | .venv/bin/pip
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then touch $@; \
	elif apt-get update -qq && apt-get install -y -qq chromium chromium-driver; then touch $@; \
	else echo 'no chromium: the browser tests will be skipped'; fi
