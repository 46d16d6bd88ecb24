# Each target makes .venv and installs what it needs; nothing else to do first.
PYTHON ?= python3
BIN := .venv/bin
DEMO ?= demo

# Two processes of one thread each (tests/conftest.py) are faster than one process of two threads.
WORKERS ?= 2
PYTEST := $(BIN)/pytest -q -n $(WORKERS) --dist worksteal --durations=10

.PHONY: demo test test-all check bench bench-read-once
demo: .venv/train
	$(BIN)/aesr1 demo -o $(DEMO)

# Without the tests marked `slow`: five to six minutes on two cores. Before a change of what those hold: make test-all.
test: check .venv/browser .venv/xmp
	$(PYTEST) -m "not slow"

test-all: check .venv/browser .venv/xmp
	$(PYTEST)

check: .venv/dev
	$(BIN)/ruff check
	$(BIN)/mypy

bench: .venv/train
	$(BIN)/python bench/rewards.py
	$(BIN)/python bench/overhead.py
	$(BIN)/python bench/imports.py

# Half an hour, and nothing else should run.
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
	$(BIN)/pip install -q -c constraints.txt -e '.[train,data,serve,photos,xmp,ray,baselines,dev]'
	touch $@

# The report is tried in a real browser. Without one (and without the right to install it) those tests skip.
.venv/browser: | .venv/bin/pip
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then touch $@; \
	elif apt-get update -qq && apt-get install -y -qq chromium chromium-driver; then touch $@; \
	else echo 'no chromium: the browser tests will be skipped'; fi

# Sidecars are written by the library exempi and read back by exiv2. Without them those tests skip.
.venv/xmp: | .venv/bin/pip
	@if command -v exiv2 >/dev/null && ldconfig -p | grep -q libexempi; then touch $@; \
	elif apt-get update -qq && apt-get install -y -qq libexempi8 exiv2; then touch $@; \
	else echo 'no exempi or exiv2: the tests of sidecars will be skipped'; fi
