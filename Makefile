# The same words by hand and in CI. `make training ARGS="--config configs/fraud.yaml"` passes options on.
PYTHON ?= python3
PY := .venv/bin/python
# uv, where it is installed, takes seconds; pip takes minutes. Both compile bytecode, which halves every start.
UV := $(shell command -v uv)
INSTALL := $(if $(UV),uv pip install --quiet --compile-bytecode --python $(PY),$(PY) -m pip install --quiet --disable-pip-version-check)
# What of Python's variables the shell has does not count, as in run.py.
unexport $(filter-out PYTHON PYTHONPATH PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED PYTHONIOENCODING,$(filter PYTHON%,$(.VARIABLES)))

.PHONY: training help demo dashboard mlflow watch notebook stop test test-stacks check format upgrade clean

training: .venv/ready             # train the model of configs/breast_cancer.yaml; `make` without a word does so too
	$(PY) run.py --pipeline training $(ARGS)

help:                             # these words
	@awk -F ':[^#]*# ' '/^[a-z-]+:[^#]*# / {printf "make %-14s%s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

demo: .venv/ready                 # the whole loop, on one screen: drift is injected, found, learned, and gone
	$(PY) -m loop.cli.demo

dashboard: .venv/ready            # the runs of this clone, in the browser; ARGS="--stack server" opens the team's
	@$(PY) -m loop.cli.dashboard $(ARGS)

mlflow: .venv/ready               # what was tried in this clone and how it did, in the browser; `make stop` ends it
	@$(PY) -m loop.cli.dashboard --mlflow

watch: .venv/ready                # Prometheus on this clone's servers until Ctrl-C; ARGS=--compose adds Grafana
	@$(PY) -m loop.cli.watch $(ARGS)

notebook: .venv/dev               # the loop on your own log, in the browser; the first call adds JupyterLab, within the pins
	@test -x .venv/bin/jupyter-lab || $(INSTALL) -c requirements.txt -c requirements-dev.txt jupyterlab
	.venv/bin/jupyter-lab notebooks/feedback.ipynb $(ARGS)

test: .venv/dev                   # all tests; `make test ARGS="-m docker -n 1"` runs those that need Docker, "-m loop" the demo
	$(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not docker and not loop and not stacks" $(ARGS)

test-stacks: .venv-stacks/ready   # tests on real servers of other places, or stand-ins for them; needs Docker and MariaDB too
	.venv-stacks/bin/python -m pytest -m stacks tests/stacks tests/test_extras.py $(ARGS)

check: .venv/dev                  # style, types, and who may import whom
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy .
	.venv/bin/lint-imports --no-logo

format: .venv/dev                 # mend what ruff can mend
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

upgrade: .venv/dev                # pin the newest versions that requirements*.in allow, for Python 3.11 to 3.13
	.venv/bin/uv pip compile --quiet --upgrade --universal --no-header --python-version 3.11 requirements.in -o requirements.txt
	.venv/bin/uv pip compile --quiet --upgrade --universal --no-header --python-version 3.11 requirements-dev.in -o requirements-dev.txt
	for extra in stacks/requirements-*.in tests/stacks/requirements.in; do \
	  cp requirements.txt $${extra%.in}.txt; \
	  .venv/bin/uv pip compile --quiet --universal --no-header --no-annotate --python-version 3.11 $$extra -o $${extra%.in}.txt; \
	done                          # the same pins, wherever the place's own packages allow it

stop:                             # stop the dashboards, and every server of this clone
	@$(PY) -m loop.cli.dashboard --stop
	@$(PY) -c 'import sys; from loop.cli import actions; sys.exit(actions.stop_all())'

clean:                            # remove all that a run, a test and an installation have made here
	@if test -d .local -a -x $(PY); then $(MAKE) --no-print-directory stop; fi
	rm -rf .venv .venv-stacks .venv-airflow .local .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/ready: requirements.txt model/requirements.in
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Python 3.11 to 3.13 is needed, {sys.executable} is {v[0]}.{v[1]}; try: make PYTHON=python3.12")'
	$(if $(UV),test -x $(PY),$(PY) -m pip --version >/dev/null 2>&1) || $(PYTHON) -m venv .venv  # an interrupted one lacks pip
	@echo installing some 200 packages: seconds with uv, minutes with pip
	@$(INSTALL) -r requirements.txt -r model/requirements.in
	@touch $@

.venv/dev: .venv/ready requirements-dev.txt
	$(INSTALL) -r requirements-dev.txt
	@touch $@

.venv-stacks/ready: tests/stacks/requirements.txt .venv/dev
	test -x .venv-stacks/bin/python || $(PYTHON) -m venv .venv-stacks
	.venv/bin/uv pip install --quiet --python .venv-stacks/bin/python -r tests/stacks/requirements.txt
	@touch $@
