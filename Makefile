# Everything from a fresh clone: each target makes .venv and installs if needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Two cores: one thread for each of two test processes; training uses all of them.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: demo test lint readme clean
.DEFAULT_GOAL := test

$(READY): settings.ini setup.py pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -e '.[dev]'
	touch $@

demo: $(READY) ## Train on drawn captchas, measure on new ones, read one
	$(BIN)/captcha-generate demo/train --n 1600 --seed 1 --height 40 --width 120 --chars 2345678bcdefgmnpwxy
	$(BIN)/captcha-generate demo/fresh --n 400 --seed 2 --height 40 --width 120 --chars 2345678bcdefgmnpwxy
	$(BIN)/captcha-train demo/train --out demo/model.safetensors --valid-pct 0.1
	@echo; echo '400 captchas that it has never seen:'
	$(BIN)/captcha-evaluate demo/model.safetensors demo/fresh
	@echo; head -2 demo/fresh/labels.csv
	$(BIN)/captcha-read demo/model.safetensors demo/fresh/$$(sed -n '2s/,.*//p' demo/fresh/labels.csv)

test: $(READY) lint ## Notebooks, then the repository's own tests
	$(ONE_THREAD) $(BIN)/nbdev-test --n-workers 2
	$(ONE_THREAD) $(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check captcha_fastai tests benchmarks .ci setup.py

readme: $(READY) ## README.md from nbs/index.ipynb
	$(BIN)/python .ci/readme.py

clean: ## What demo and tests leave behind; not .venv
	rm -rf demo build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
