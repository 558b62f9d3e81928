# Two commands do all the set-up: `make run` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
EXTRAS := $(shell command -v nvidia-smi >/dev/null 2>&1 && echo "[gpu]")
# Two at a time, a file to each: the start-up of models and browsers is shared by the tests of a file.
PYTEST_ARGS ?= -n 2 --dist loadfile

.PHONY: run test check lint format docs system-test-packages clean help

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

run: $(VENV)/.app ## install what is needed, start the app
	@$(BIN)/python -m dbgpt_lite serve

test: $(VENV)/.dev system-test-packages ## install what is needed, run every test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.dev ## lint, types, import rules, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_project.py

format: $(VENV)/.dev ## put the code in order
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev ## write .env.template, docs/settings.md and the tables of docs/models.md anew
	$(BIN)/python tools/write_settings_docs.py
	PYTHONPATH=. $(BIN)/python tools/write_model_docs.py

system-test-packages:
	@sh tools/install_test_packages.sh

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Python's venv module is missing (Debian, Ubuntu: apt install python3-venv)"; exit 1; }

# `env -u`: packages are compiled to bytecode once, at install; without it every start pays for it.
$(VENV)/.app: pyproject.toml constraints.txt | $(VENV)/bin/python
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".$(EXTRAS)"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@ $(VENV)/.app

clean: ## remove the environment (never your data or models)
	rm -rf $(VENV) build dist *.egg-info
