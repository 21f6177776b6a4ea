# retsam: `make demo` and `make test` each set up everything they need on a machine with Python 3.11 or newer.
#
#   make demo      render a cohort and run the whole study on it; the last line is the report's path
#   make setup     the environment alone (.venv), for studies of your own
#   make test      the tests
#   make ci        what .ci/run does
#   make picture   docs/images/report.png again, from the demo's report
#
# Variables (make demo VARIABLE=value):
#   TORCH_INDEX    package index that torch comes from. Empty: the default index, whose Linux wheels carry CUDA (gigabytes).
#                  A machine without a GPU wants   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
#   PYTHON         interpreter that makes the environment (3.11 or newer)
#   VENV           the environment
#   CORES          cores for Snakemake
#   DEMO_SUBJECTS  subjects of the rendered cohort (two eyes each); one that is there already is kept, `make clean` removes it

TORCH_INDEX ?=
PYTHON ?= python3
VENV ?= .venv
CORES ?= all
DEMO_SUBJECTS ?= 60
DEMO_DIR ?= results/demo-cohort
PIP_FLAGS ?= --quiet --disable-pip-version-check

BIN := $(VENV)/bin
STAMP := $(VENV)/.retsam-installed

.PHONY: help setup demo test lint ci pages picture clean
.DEFAULT_GOAL := help

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12"; exit 1; }
	@echo "Setting up $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@if [ -n "$(TORCH_INDEX)" ]; then $(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt --index-url "$(TORCH_INDEX)" torch; fi
	@$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev,slurm]'
	@touch $(STAMP)

demo: setup $(DEMO_DIR)/config.yaml
	@$(BIN)/snakemake --cores $(CORES) --quiet host reason
	@echo "Report:"
	@$(BIN)/python -c 'from pathlib import Path; print(Path("results/demo/report.html").resolve(strict=True))'

# The cohort is rendered once; `make clean` removes it.
$(DEMO_DIR)/config.yaml: | setup
	@$(BIN)/retsam demo --out $(DEMO_DIR) --subjects $(DEMO_SUBJECTS)

test: setup
	@$(BIN)/python -m pytest -q -n 2

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/python -m retsam.config --check

pages: setup
	@$(BIN)/python -m retsam.config

# The README's picture, from the demo's report; needs chromium.
picture: demo
	@mkdir -p docs/images
	@chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1280,1500 --virtual-time-budget=8000 \
		--screenshot="$(CURDIR)/docs/images/report.png" "file://$(CURDIR)/results/demo/report.html"

ci:
	@./.ci/run

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .snakemake results/demo $(DEMO_DIR)
