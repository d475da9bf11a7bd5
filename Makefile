# Two commands are enough: `make demo` and `make test`. Each sets up what it needs in .venv first.
#
#   PYTHON       the Python to use, 3.11 or newer
#   TORCH_INDEX  a package index with the torch build you want, for example PyTorch's for CPUs:
#                make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH_INDEX ?=
DEVICE ?= cuda
VENV := .venv
BIN := $(VENV)/bin
CODE := src tests benchmarks docs examples
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test gpu lint format docs dist sbom clean

demo: $(VENV)/ready-demo
	$(BIN)/catgan demo

test: $(VENV)/ready-dev
	$(BIN)/pytest --durations=25 --durations-min=4

# Ten minutes on one card: tests of every path on it, then speed and memory, into records/gpu. DEVICE=cpu tries the code.
gpu: $(VENV)/ready-dev
	$(BIN)/python benchmarks/gpu.py --device $(DEVICE) $(if $(filter cpu,$(DEVICE)),--out runs/gpu)

lint: $(VENV)/ready-dev
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/python docs/licences.py >/dev/null
	@site=$$(mktemp -d) && trap "rm -rf $$site" EXIT && NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --site-dir $$site

format: $(VENV)/ready-dev
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

# The documentation as a site, in site/: nothing in it is fetched from elsewhere.
docs: $(VENV)/ready-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict

# A source distribution and a wheel, in dist/.
dist: $(VENV)/ready-dev
	rm -rf dist
	$(BIN)/python -m build

# Every package of .venv with version and licence, as CycloneDX in dist/. The tool has an environment of its own, not to list itself.
sbom: $(VENV)/ready-demo
	$(PYTHON) -m venv build/sbom
	build/sbom/bin/pip install --quiet --disable-pip-version-check cyclonedx-bom
	mkdir -p dist
	sed "s/^dynamic = .*/version = \"$$($(BIN)/python -c 'import catgan; print(catgan.__version__)')\"/" pyproject.toml > build/sbom/pyproject.toml
	build/sbom/bin/cyclonedx-py environment --pyproject build/sbom/pyproject.toml --mc-type library --output-reproducible -o dist/catgan.cdx.json $(BIN)/python

$(VENV)/ready-%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "catgan needs Python 3.11 or newer; set PYTHON=..., found: $$($(PYTHON) --version)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (PyTorch is large: minutes the first time)"
	@$(if $(TORCH_INDEX),$(PIP) --no-deps torch --index-url $(TORCH_INDEX))
	@$(PIP) -e '.[$*]' $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	@touch $@

clean:
	rm -rf $(VENV) build dist site src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
