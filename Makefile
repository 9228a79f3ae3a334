# Every target sets up what it needs; the second time that takes a moment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
DEMO := $(if $(wildcard $(STAMP)),$(VENV),$(VENV)-demo)
NEW_ENOUGH = $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "noisytune needs Python 3.11 or newer; say which:  make PYTHON=python3.12 ..."; exit 1; }
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: setup demo test test-ranks test-frameworks test-pages test-docs test-package test-slow test-faults test-deepspeed test-oldest test-trackers test-ray sweep sweep-table sweep-oldest families extras lint types docs docs-serve tutorials picture evidence bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(NEW_ENOUGH)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --build-constraint constraints.txt --editable '.[dev]'
	@touch $@

# In the environment that is there, or in one with what the demo needs alone. torch from PyPI brings CUDA on Linux, gigabytes of it:
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo  takes the build for processors.
demo: $(DEMO)/.set-up
	$(DEMO)/bin/noisytune compare

$(VENV)-demo/.set-up: pyproject.toml constraints.txt
	@$(NEW_ENOUGH)
	@echo "Setting up $(@D): torch, transformers, a small model and texts for it. Once; the next time the demo begins at once."
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --no-compile --constraint constraints.txt pip torch
	$(@D)/bin/python -m pip install --no-compile --constraint constraints.txt --build-constraint constraints.txt --editable '.[demo]'
	@touch $@

test: setup
	$(BIN)/pytest -n auto --dist worksteal -m 'not slow' $(LONG:%=--ignore=%)

# What takes longer has targets of its own: processes that train together, frameworks that compile, pages in a browser, and
# whatever the documentation, the examples and the evidence tell people to run.
LONG_ranks := tests/integrations/test_transformers_distributed.py tests/torch/distributed tests/lab/trials/test_launched.py
LONG_frameworks := tests/jax tests/integrations/test_keras.py tests/integrations/test_recipes.py tests/torch/test_triton.py
LONG_pages := tests/report/page/test_browser.py
LONG_docs := tests/test_docs.py tests/test_tutorials.py tests/test_examples.py tests/test_evidence.py
LONG := $(LONG_ranks) $(LONG_frameworks) $(LONG_pages) $(LONG_docs)
test-ranks test-frameworks test-pages test-docs: test-%: setup
	$(BIN)/pytest -n auto --dist worksteal -m 'not slow' $(LONG_$*)

# The wheel and the source distribution, built twice and installed into environments of their own.
test-package: setup
	$(BIN)/pytest -m 'slow or not slow' tests/test_package.py

test-slow: setup
	$(BIN)/pytest -n auto -m slow

# Processes killed thirty times, full disks, clocks that jump: prints what was killed, begun and stored.
test-faults: setup
	$(BIN)/pytest -s tests/lab/studies/test_faults.py tests/lab/studies/test_killed.py tests/lab/store/test_claims.py \
		tests/cli/test_running.py

# Hosts and releases that do not go with the others have an environment of their own.
test-deepspeed: $(VENV)-deepspeed/.set-up
	$(VENV)-deepspeed/bin/pytest tests/integrations/test_transformers_distributed.py -k deepspeed

$(VENV)-deepspeed/.set-up: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --constraint constraints.txt pip torch
	$(@D)/bin/python -m pip install --quiet --constraint constraints.txt --build-constraint constraints.txt \
		--editable '.[demo,deepspeed]' hypothesis pytest
	@touch $@

# Trackers and Ray bring much that nothing else needs, and MLflow wants older versions of what others bring.
test-trackers test-ray: test-%: $(VENV)-%/.set-up
	$(VENV)-$*/bin/pytest -m 'slow or not slow' $(CLUSTER_TESTS_$*)

CLUSTER_TESTS_trackers := tests/lab/studies/test_tracked.py tests/lab/trials/test_trackers.py
CLUSTER_TESTS_ray := tests/lab/engines
CLUSTER_NEEDS_trackers := mlflow wandb trackio tensorboard
CLUSTER_NEEDS_ray := 'ray>=2.56'
$(VENV)-trackers/.set-up $(VENV)-ray/.set-up: $(VENV)-%/.set-up: pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(@D)
	grep -E '^(pip|torch|transformers)==' constraints.txt > $(@D)/constraints.txt
	$(@D)/bin/python -m pip install --quiet --constraint $(@D)/constraints.txt pip torch
	$(@D)/bin/python -m pip install --quiet --constraint $(@D)/constraints.txt --build-constraint constraints.txt \
		--editable '.[demo]' hypothesis pytest $(CLUSTER_NEEDS_$*)
	@touch $@

OLDEST := transformers==5.12.0
test-oldest: $(VENV)-oldest/.set-up
	$(VENV)-oldest/bin/pytest -n auto -m 'not slow' tests/integrations \
		tests/lab/trials/test_fine_tune.py tests/lab/trials/test_select.py tests/lab/trials/test_refused.py

$(VENV)-oldest/.set-up: pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv $(@D)
	grep -Ev '^(transformers|tokenizers|huggingface.hub)==' constraints.txt > $(@D)/constraints.txt
	$(@D)/bin/python -m pip install --quiet --constraint $(@D)/constraints.txt pip torch
	$(@D)/bin/python -m pip install --quiet --constraint $(@D)/constraints.txt --build-constraint constraints.txt \
		--editable '.[demo,peft]' hypothesis pytest pytest-xdist '$(OLDEST)'
	@touch $@

# Every model type of transformers, tiny: a quarter of an hour on two idle cores. make sweep PART=1/2 beside PART=2/2;
# make sweep TYPES="bert llama"; make sweep BRIEF=--brief; then make sweep-table.
# make sweep-oldest, the types that stand for all, or TYPES; then make sweep-table RESULTS=sweep-results-oldest.
PART := 1/1
TYPES :=
BRIEF :=
RESULTS := sweep-results
SWEEP = PYTHONPATH=tools OMP_NUM_THREADS=1
sweep: setup
	$(SWEEP) $(BIN)/python -m sweep $(TYPES) --part $(PART) $(BRIEF)

sweep-table: setup
	$(SWEEP) $(BIN)/python -m sweep.table $(RESULTS)

sweep-oldest: $(VENV)-oldest/.set-up
	$(SWEEP) $(VENV)-oldest/bin/python -m sweep $(or $(TYPES),sample) --brief --out sweep-results-oldest

# The table of model types, from transformers' own code: make families TYPES="bert llama" writes their lines anew.
families: setup
	PYTHONPATH=tools OMP_NUM_THREADS=1 $(BIN)/python tools/families.py $(TYPES)

# Can every extra be had as wheels, on each Python? Asks the package index and installs nothing. DeepSpeed has none: it is built where it runs.
EXTRAS := torch jax triton hub report lab tune peft quantize ray lightning keras demo docs
PYTHONS := 3.11 3.12 3.13 3.14
extras: $(VENV)-uv/.set-up
	@for version in $(PYTHONS); do \
		$(VENV)-uv/bin/uv pip compile pyproject.toml $(EXTRAS:%=--extra %) --python-version $$version --only-binary :all: --quiet \
			> $(VENV)-uv/$$version.txt || exit 1; \
		echo "Python $$version: $$(grep -c == $(VENV)-uv/$$version.txt) packages"; \
	done

$(VENV)-uv/.set-up:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet uv
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: setup
	$(BIN)/mypy

# The site, strictly: a broken link is an error. make docs-serve shows it.
docs: setup
	$(BIN)/python -m sphinx -b html --fail-on-warning --keep-going --quiet docs docs/_build

docs-serve: docs
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory docs/_build 8000

# Run the tutorials, and write what they print into their pages and notebooks: half an hour on two cores.
tutorials: setup
	$(BIN)/python docs/make_tutorials.py

# The README's picture of a report, light and dark, from the run in docs/first-report. Needs Chromium.
picture: setup
	$(BIN)/python docs/make_picture.py

# The pages, the table and the forest plot of evidence/, from its records.
evidence: setup
	$(BIN)/python evidence/render.py

bench: setup
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) $(VENV)-* dist docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
