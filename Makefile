# Two commands for a fresh machine with Python 3.11 or newer and make:
#   make demo    optimize a real trained model and print what each pass did
#   make test    run the tests
# With Debian's chromium (apt-get install chromium):
#   make test-browser    open the pages that irtools makes
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
MODELS ?= build/models
# Tests run in two processes, the tests of one file in one of them.
JOBS ?= 2
PARALLEL := --numprocesses $(JOBS) --dist loadfile
# Tests start many processes: modules are compiled once, as in an installed package.
unexport PYTHONDONTWRITEBYTECODE

STAMP := $(VENV)/.installed-from-constraints

.PHONY: site demo test test-slow test-browser check lint types format docs clean

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]'
	touch $@

demo: $(STAMP)
	$(BIN)/python -m benchmarks prepare minilm --cache $(MODELS)
	mkdir -p $(MODELS)/minilm/onnx
	$(BIN)/irc export $(MODELS)/minilm/checkpoint -o $(MODELS)/minilm/onnx/minilm.onnx --force
	$(BIN)/irc optimize $(MODELS)/minilm/onnx/minilm.onnx --passes cleanup,fuse,int8 \
	    --calibrate examples/sentences.jsonl --seq 64 \
	    -o $(MODELS)/minilm/onnx/minilm.int8.onnx --force

test: $(STAMP)
	$(BIN)/pytest $(PARALLEL) -m "not slow and not gpu and not browser"

test-slow: $(STAMP)
	$(BIN)/pytest $(PARALLEL) -m "slow and not gpu and not browser"

# Pages in the Chromium that is on the PATH.
test-browser: $(STAMP)
	$(BIN)/pytest -m browser

check: lint types

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Types are checked on an installed copy: only there do the four folders form one package.
types: $(STAMP)
	rm -rf build/installed build/lib
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target build/installed .
	cd build/installed && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml -p irtools

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)
	$(BIN)/python docs/make_reference.py
	$(BIN)/python docs/make_architecture.py

# The pages of docs/ as a site that opens from disk, in build/site.
site: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
