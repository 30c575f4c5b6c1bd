# Two commands matter: `make demo` and `make test`. Each sets up what it needs, and no more.
PYTHON ?= python3
VENV   ?= .venv
DEMO   ?=
BIN    := $(VENV)/bin
DEMO_READY := $(VENV)/.demo
READY  := $(VENV)/.ready
SHARED := --dist loadfile --no-loadscope-reorder --durations=25

.PHONY: demo test test-slow lint explore docs commands clean

demo: $(DEMO_READY)       ## the whole product on generated images, offline
	$(BIN)/featstore demo $(DEMO)

test: $(READY)            ## the fast tests, in three processes: some of them wait
	$(BIN)/python -m pytest -n 3 $(SHARED)

test-slow: $(READY)       ## crash loops, real data, every network, properties with more examples
	$(BIN)/python -m pytest -m "slow or property" -n 2 $(SHARED)

lint: $(READY)            ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

explore: $(READY)         ## the example with pandas, and a network that others published; neither is in the environment: scikit-learn would load pandas in every command
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target build/others -c constraints.txt pandas rapidocr-onnxruntime
	PYTHONPATH="$(CURDIR)/build/others" $(BIN)/python -m pytest -m slow tests/test_examples.py tests/backbones/test_onnx_backbone.py -k "pandas or somebody_else"

docs: $(READY)            ## the documentation site in build/docs; runs the tutorial, fetches nothing
	$(BIN)/python -m sphinx -q -n -W --keep-going docs build/docs

commands: $(READY)        ## docs/commands from what --help says
	$(BIN)/python docs/commands.py

clean:
	rm -rf $(VENV) build *.egg-info

$(DEMO_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(READY): $(DEMO_READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@
