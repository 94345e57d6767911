# One command each; the environment is made on the way. On Windows use the `uv run` lines of the README.
UV_VERSION := 0.13.9
UV := .tools/bin/uv
RUN := $(UV) run --frozen --all-extras --no-sync
SYNCED := .venv/.synced
# The files of tests side by side, those of one file in turn.
PARALLEL := -n logical --dist loadfile
# Those of tests/benchmarks that measure accuracy.
EVALUATIONS := accuracy nli unfair pii ranking

.DEFAULT_GOAL := help
.PHONY: help demo up test test-all check bench eval clean

help:
	@echo "make demo       start everything, review a sample contract, print the review, stop"
	@echo "make up         start everything until Ctrl-C"
	@echo "make test       the tests, at most 10 minutes"
	@echo "make test-all   all tests, at most 40 minutes"
	@echo "make check      formatting, lint, types, layers, sizes, links"
	@echo "make bench NAME=…   one benchmark of tests/benchmarks"
	@echo "make eval       accuracy on the shared data: $(EVALUATIONS)"

$(UV):
	@python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Casemill needs Python 3.11 or newer as python3"; exit 1; }
	@command -v c++ >/dev/null || { echo "Casemill compiles llama.cpp once: install a C++ compiler, e.g. apt-get install g++"; exit 1; }
	python3 -m venv .tools
	.tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(SYNCED): $(UV) pyproject.toml uv.lock
	@echo "installing the locked dependencies; the first time compiles llama.cpp, about 5 minutes on two cores"
	$(UV) sync --frozen --all-extras
	@touch $@

demo: $(SYNCED)
	$(RUN) casemill demo

up: $(SYNCED)
	$(RUN) casemill up

test: $(SYNCED)
	$(RUN) pytest $(PARALLEL) -m "not slow"

test-all: $(SYNCED)
	$(RUN) pytest $(PARALLEL)

check: $(SYNCED)
	$(RUN) ruff format --check
	$(RUN) ruff check
	$(RUN) pyright
	$(RUN) lint-imports
	$(RUN) python tests/check_house.py

bench: $(SYNCED)
	@test -f "tests/benchmarks/$(NAME).py" || { echo "NAME is one of: $$(ls tests/benchmarks | sed -n 's/\.py$$//p' | tr '\n' ' ')"; exit 1; }
	$(UV) sync --quiet --frozen --all-extras --inexact --group bench
	$(RUN) python -m tests.benchmarks.$(NAME)

eval: $(SYNCED)
	@for name in $(EVALUATIONS); do echo "== $$name"; $(RUN) python -m tests.benchmarks.$$name || exit 1; done

clean:
	rm -rf .venv .tools dist
