# Every target sets up what it needs in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard ext/*.pyx ext/*.pxd) setup.py pyproject.toml
SECONDS ?= 60
SEED ?=
PYTEST_ARGS ?= -n 3 --dist worksteal
SANITIZE_ARGS ?= -n 2

.PHONY: help demo test lint format types sanitize fuzz bench clean

help:
	@echo "make demo      a proxy in front of three sample backends; prints what to try"
	@echo "make test      the test suite"
	@echo "make lint      ruff and mypy --strict"
	@echo "make sanitize  the test suite under AddressSanitizer and UBSan"
	@echo "make fuzz      the parsers' fuzzers, SECONDS=$(SECONDS) in all"
	@echo "make bench     side by side with nginx, HAProxy, Envoy, Caddy and Traefik"

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "venv is needed (Debian: apt install python3-venv python3-dev gcc)"; exit 1; }

$(VENV)/.run: $(BIN)/python $(SOURCES)
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(BIN)/python $(SOURCES)
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run
	$(BIN)/python -m turnout demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python -m mypy

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# A second build beside the first. The interpreter is not instrumented, so the runtimes are loaded before it; it
# never frees what it holds at exit, so leaks are counted by the debug build itself and not looked for by
# LeakSanitizer. Left out are tests that measure memory, which AddressSanitizer keeps after it was freed, and those
# of what has no C of ours in it.
SANITIZED := build/sanitize
SANITIZE_ENV = LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:allow_user_segv_handler=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
  PYTHONMALLOC=malloc PYTHONPATH=$(CURDIR)/$(SANITIZED) TURNOUT_SANITIZED=1

$(SANITIZED)/.built: $(VENV)/.dev $(SOURCES) $(wildcard proxy/*.py control/*.py src/turnout/*.py)
	rm -rf $(SANITIZED)
	TURNOUT_SANITIZE=1 $(BIN)/python setup.py --quiet build --build-lib $(SANITIZED) --build-temp build/sanitize-temp
	@touch $@

sanitize: $(SANITIZED)/.built
	$(SANITIZE_ENV) $(BIN)/python -m pytest $(SANITIZE_ARGS) -p no:cacheprovider -m "not memory" \
	  --ignore tests/control --ignore tests/docs --ignore tests/bench --ignore tests/test_packaging.py

fuzz: $(SANITIZED)/.built
	$(SANITIZE_ENV) $(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

bench: $(VENV)/.dev
	$(PIP) --editable '.[bench]' --no-build-isolation
	$(BIN)/python bench/peers.py
	$(BIN)/python bench/micro.py

clean:
	rm -rf build dist $(VENV) src/*.egg-info ext/*.so
