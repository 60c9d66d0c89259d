# tfos: `make help` lists what can be made. Everything happens in .venv and .cache.

.DEFAULT_GOAL := help
SHELL := /bin/bash
# Programs that start often are not to be compiled each time.
unexport PYTHONDONTWRITEBYTECODE
.SHELLFLAGS := -euo pipefail -c

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
DATA := .cache/ml-100k
CLASSES := .cache/spark-classes.jsa

# PYTHON=... chooses the interpreter; otherwise the first of these that is 3.10, 3.11 or 3.12.
PYTHON ?=
PYTHONS := $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3.10 python3)
# The pins were made on 3.11 and hold on 3.12; on 3.10 the ranges of pyproject.toml decide.
CONSTRAINTS = $$($(BIN)/python -c 'import sys; print("-c constraints.txt" * (sys.version_info >= (3, 11)))')
# tensorflow-cpu is half of tensorflow's size; tf-keras, which asks for the latter, takes either.
TENSORFLOW ?= tensorflow-cpu

DEMO_ARGS ?= --arch ps --num-ps 1 --num-workers 2 -p data=$(CURDIR)/$(DATA) examples/fm_movielens/fm.py
PYTEST_ARGS ?=
# The tests that `make test` runs; continuous integration runs more: TIERS='not faults'.
TIERS ?= not faults and not ci
# Many tests mostly wait: for processes that start, and for silence to be noticed. On two cores.
WORKERS ?= 3
# A worker that a test crashed is replaced once; its test would crash the next one as well.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup --no-loadscope-reorder \
  --max-worker-restart 1
SIDE_BY_SIDE = $(MAKE) --no-print-directory -j4

.PHONY: help
help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

.PHONY: demo
demo: java $(STAMP) $(DATA) ## Train a factorization machine on MovieLens: 1 PS, 2 workers, this machine.
	$(BIN)/pl_submit $(DEMO_ARGS)

.PHONY: check
check: $(STAMP) ## Check style, spelling and types, run the unit tests: a minute or two.
	@$(SIDE_BY_SIDE) --output-sync=target style types test-unit

.PHONY: test
test: java $(STAMP) ## Check, and run every test but those of YARN and of faults.
	@$(SIDE_BY_SIDE) style types horovod $(DATA) $(CLASSES)
	@echo "$$(date +%T) the checks passed and what the tests need is there; running them"
	$(PYTEST) -m "$(TIERS)" $(PYTEST_ARGS)

.PHONY: test-unit
test-unit: $(STAMP) ## Run the unit tests: no Spark, ZooKeeper or TensorFlow.
	$(PYTEST) tests/unit $(PYTEST_ARGS)

.PHONY: test-faults
test-faults: java horovod ## Cause every fault at every point; writes docs/fault-matrix.md. Two hours.
	TFOS_FAULT_TABLE=$(CURDIR)/docs/fault-matrix.md $(BIN)/python -m pytest -m "" tests/fault tests/yarn $(PYTEST_ARGS)
	$(BIN)/python -m pytest -m faults tests/e2e $(PYTEST_ARGS)

.PHONY: lint
lint: style types ## Check style, spelling and types.

.PHONY: style
style: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell tfos tests docs examples benchmarks conf README.md CHANGELOG.md CONTRIBUTING.md

.PHONY: types
types: $(STAMP)
	$(BIN)/mypy

.PHONY: horovod
horovod: $(STAMP) ## Build Horovod for the TensorFlow of .venv, install and check it; minutes, once.
	@$(BIN)/tfos horovod --cache .cache/horovod

.PHONY: docs
docs: $(STAMP) ## Write docs/configuration.md and conf/tfos-defaults.yaml from the settings.
	$(BIN)/python docs/generate_configuration.py

.PHONY: site
site: $(STAMP) ## Build the documentation into build/site; a broken link or reference is an error.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

.PHONY: dist
dist: $(STAMP) ## Build dist/*.whl and *.tar.gz, and check the wheel in an environment of its own: minutes.
	rm -rf dist .cache/dist-check
	$(BIN)/python -m build --no-isolation
	$(BIN)/python -m venv .cache/dist-check
	.cache/dist-check/bin/python -m pip --disable-pip-version-check install -q $(CONSTRAINTS) dist/*.whl
	cd .cache && dist-check/bin/python -c 'import tfos; print("checked: tfos", tfos.__version__)'
	cd .cache && for program in pl_submit tfos; do dist-check/bin/$$program --help >/dev/null; done
	rm -rf .cache/dist-check

.PHONY: bench
bench: java $(STAMP) ## Run every benchmark and print its figures.
	for benchmark in benchmarks/*.py; do echo "== $$benchmark"; $(BIN)/python "$$benchmark"; done

.PHONY: install
install: $(STAMP) ## Make .venv with tfos, TensorFlow and the tools; once.

.PHONY: data
data: $(DATA) ## Fetch MovieLens 100K into .cache; once.

.PHONY: clean
clean: ## Remove .venv, .cache and everything built.
	rm -rf $(VENV) .cache build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): constraints.txt pyproject.toml
	@[ ! -x $(BIN)/python ] || exit 0; \
	python=; for each in $(PYTHONS); do \
	  if "$$each" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' \
	    >/dev/null 2>&1; then python="$$each"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "make: tfos needs Python 3.10, 3.11 or 3.12 with venv; found none as: $(PYTHONS)." \
	    "Install one (Debian and Ubuntu: apt install python3.11 python3.11-venv) or name it:" \
	    "make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi; \
	"$$python" -m venv $(VENV)
	@echo "installing tfos and TensorFlow into $(VENV): some minutes, once"
	$(PIP) install -q --no-compile $(CONSTRAINTS) -e '.[dev]' $(TENSORFLOW)
	$(PIP) install -q --no-compile $(CONSTRAINTS) --no-deps tf-keras
	@# pip would compile every file of every package; few are ever imported.
	$(BIN)/python -c 'import pyspark.sql, tfos.cli.main; \
	  from tfos.frameworks.contract import load_framework; \
	  from tfos.launcher.training.quiet_import import import_quietly; \
	  from tfos.topology import Role; \
	  import_quietly(lambda: load_framework("local").import_libraries(Role.CHIEF))'
	@touch $@

# The wheel of RecBole carries MovieLens 100K; nothing else of it is used or installed.
$(DATA): | $(STAMP)
	mkdir -p .cache
	$(PIP) download -q --no-deps recbole==1.2.1 -d .cache
	$(BIN)/python -c 'import pathlib, shutil, zipfile; \
	  aside = pathlib.Path("$(DATA).part"); shutil.rmtree(aside, ignore_errors=True); aside.mkdir(); \
	  wheel = zipfile.ZipFile(next(pathlib.Path(".cache").glob("recbole-1.2.1-*.whl"))); \
	  names = [n for n in wheel.namelist() if n.startswith("recbole/dataset_example/ml-100k/ml-100k.")]; \
	  [(aside / pathlib.PurePosixPath(n).name).write_bytes(wheel.read(n)) for n in names]; \
	  aside.rename("$(DATA)")'

$(CLASSES): $(STAMP) tests/support/spark_classes.py
	mkdir -p .cache
	@echo "archiving the classes of Spark's JVMs for the tests: half a minute, once"
	$(BIN)/python tests/support/spark_classes.py $@

.PHONY: java
java:
	@java=$${JAVA_HOME:+$$JAVA_HOME/bin/}java; \
	found=$$("$$java" -version 2>&1 | sed -nE 's/.*version "(1\.)?([0-9]+).*/\2/p' | head -1 || true); \
	if [ "$${found:-0}" -lt 17 ]; then \
	  echo "make: Spark needs Java 17 or newer; $$java is $${found:-missing}." \
	    "Install it (Debian and Ubuntu: apt install openjdk-17-jre-headless) or set JAVA_HOME" >&2; \
	  exit 1; \
	fi
