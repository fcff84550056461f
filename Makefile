# Everything runs in .venv, which the first target that needs it installs.
# PYTHON names the Python 3.10 to make it with; by default python3.10, python3 or uv provide one.

PYTHON =
PY = .venv/bin/python

.PHONY: help demo test campaign lint clean

help:
	@echo 'make demo   convert the trained model, run it in Lava on a CPU, compare bit by bit'
	@echo 'make test   ruff, ruff format --check and all tests'
	@echo 'make campaign  300 random networks and convolutions: oracle, engines, Lava and lava-dl agree (some minutes)'
	@echo 'make lint   ruff, ruff format --check and mypy'
	@echo 'make clean  remove .venv, build products and tool caches'
	@echo 'The first of them installs into .venv (Python 3.10, about 5.6 GB).'

demo: .venv/.installed
	@$(PY) -m deploy.demo

test: .venv/.installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest

campaign: .venv/.installed
	EXAMPLES=300 $(PY) -m pytest tests/test_agreement.py tests/cpu/test_synapses.py tests/lava/test_lava_dl_network.py -s

lint: .venv/.installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find train export deploy tests tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.venv/.installed: pyproject.toml constraints.txt
	@PYTHON='$(PYTHON)' ./tools/install.sh
