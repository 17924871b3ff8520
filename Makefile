# make table          makes the ablation table on the embedded benchmark, from an empty clone: results/table.csv
# make test           runs all tests
# make docs           builds the documentation as a site: site/index.html
# make lint           checks the style of code and workflow; make format fixes it; make types runs mypy, strict
# make ui             opens all runs in MLflow
# To choose the interpreter: make PYTHON=/path/to/python3.12 table. To choose the settings file: make XKD_PARAMS=file.yaml table.

SHELL := /bin/bash
BIN := $(CURDIR)/.venv/bin
READY := .venv/.ready
# By default, Snakemake 9 looks for jobs to start more often with each job that ends (docs/performance.md).
RUN := PATH="$(BIN):$$PATH" snakemake --cores all --rerun-incomplete --show-failed-logs --quiet host reason --max-jobs-per-timespan 100/5s
SUPPORTED := import sys, venv, ensurepip; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))

# Containers often set this variable; each of a hundred jobs would then spend ten seconds on compiling torch and MLflow.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: table test ui repro docs lint format types
.DEFAULT_GOAL := table

table: $(READY)
	$(RUN)

repro: $(READY)
	PATH="$(BIN):$$PATH" dvc repro

# Two processes for each processor, since tests of engines, kills and servers wait for a fifth of their time; at most four, for memory.
test: $(READY)
	$(BIN)/python -m pytest --numprocesses $$(($$(nproc) * 2)) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build
	@echo 'Open site/index.html'

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

types: $(READY)
	$(BIN)/mypy

ui: $(READY)
	$(BIN)/python -m xkd ui

# Runs each interpreter to test it, since a name on PATH may be a stub or lack venv. uv takes a fifth of
# pip's time, but does not read pip's settings; where only those name a server of packages, pip installs them. Modules are compiled
# when they are first imported; pip would compile many more.
$(READY): pyproject.toml constraints.txt
	@found=; for python in $(PYTHON) python3.11 python3.12 python3 python; do \
	  if "$$python" -c '$(SUPPORTED)' 2>/dev/null; then found="$$python"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo 'xkd needs Python 3.11 or 3.12 with venv: install one (Debian, Ubuntu: apt install python3-venv) or name it, make PYTHON=/path/to/python' >&2; \
	  exit 2; \
	fi; \
	echo "Setting up .venv with $$("$$found" --version); the first time takes a few minutes."; \
	"$$found" -m venv .venv
	@pip="$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile"; packages="-c constraints.txt -e .[dev]"; \
	$$pip -c constraints.txt uv && $(BIN)/uv pip install --quiet --python $(BIN)/python $$packages || \
	{ echo 'uv could not install the packages; trying pip.' >&2; $$pip $$packages; }
	@touch $@
