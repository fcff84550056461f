# Everything runs in .venv, which the first target that needs it installs, with Python 3.10 from python3.10, python3 or uv.
# PYTHON names another interpreter; a newer one has an environment of its own, such as .venv-3.12 (docs/install.md).

PYTHON =
CPU =
KINDS = agreement damage kills soak
MINUTES = 60
INTERPRETER =
VENV = .venv
ifneq ($(strip $(PYTHON)),)
INTERPRETER := $(shell ./tools/find_python.sh $(PYTHON))
ifeq ($(INTERPRETER),)
$(error PYTHON is $(PYTHON); allowed: an interpreter of Python 3.10 to 3.13 that can make environments)
endif
VERSION := $(shell $(INTERPRETER) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
VENV := .venv$(addprefix -,$(filter-out 3.10,$(VERSION)))
endif
PY = $(VENV)/bin/python
MODE = $(if $(CPU),$(PY) -m nqlava.testing.cpu_modes $(CPU))

# Lava on a newer Python: small networks, less than a minute.
NEWER_TESTS = tests/lava/test_compatibility.py tests/lava/test_lava_engine.py tests/test_golden.py

# Kernels, which are not compiled when their lines are to be counted.
UNCOMPILED = tests/nqlava/engine/cpu/test_kernels.py tests/lava_dl/test_engine.py::test_dynamics \
  $(addprefix tests/nqlava/engine/cpu/test_events.py::, test_any_number_of_outputs test_by_hand test_count \
  test_thousands_of_the_largest_weights_do_not_wrap)

# Tests run in a process per core, eight at most; WORKERS=0 runs them in one, with a debugger if you like.
WORKERS = logical
PYTEST = $(PY) -m pytest -n $(WORKERS) --maxprocesses 8 --dist worksteal

.PHONY: help demo check test test-newer coverage stress lint clean

help:
	@echo 'make demo   convert the trained model, run it in Lava on a CPU, compare bit by bit'
	@echo 'make check  ruff, ruff format --check, mypy and the fast tests'
	@echo 'make test   ruff, ruff format --check, mypy and all tests'
	@echo 'make test CPU=avx2  all tests as on a processor with AVX2 alone; also avx512 (no VNNI, no AMX) and no-int8'
	@echo 'make test-newer  tests of Lava on a newer Python: 3.11, 3.12 or 3.13, whichever is found first'
	@echo 'make stress  random networks, damaged files, interrupted commands, deployments: an hour each (docs/reliability.md);'
	@echo '             make stress MINUTES=2 KINDS=damage takes two minutes, for one of agreement, damage, kills, soak'
	@echo 'make coverage  lines and branches of nqlava/, export/ and deploy/ that the tests run; fails below 95 % (15 minutes)'
	@echo 'make lint   ruff, ruff format --check and mypy'
	@echo 'make clean  remove .venv, build products and tool caches'
	@echo 'The first of them installs into .venv (Python 3.10, about 6 GB).'
	@echo 'With PYTHON=python3.12, say, all that runs on Python 3.12, installed into .venv-3.12.'

demo: $(VENV)/.installed
	@$(PY) -m deploy.demo

check: lint
	$(MODE) $(PYTEST) -m 'not slow'

test: lint
	$(MODE) $(PYTEST)

ifeq ($(VENV),.venv)
test-newer:
	@newer=$$(./tools/find_python.sh 3.11 3.12 3.13) || { \
	  echo 'no Python 3.11 to 3.13 found: install one, or name it: make PYTHON=/path/to/python3.12 test-newer' >&2; exit 2; }; \
	$(MAKE) --no-print-directory PYTHON="$$newer" test-newer
else
test-newer: $(VENV)/.installed
	$(PY) -m pytest $(NEWER_TESTS)
endif

coverage: $(VENV)/.installed
	$(PY) -m coverage erase
	$(PY) -m coverage run -m pytest --ignore=tests/train --ignore=tests/benchmarks
	NUMBA_DISABLE_JIT=1 $(PY) -m coverage run -m pytest $(UNCOMPILED)
	$(PY) -m coverage combine -q
	$(PY) -m coverage report

stress: $(VENV)/.installed
	set -e; for kind in $(KINDS); do $(PY) -m stress $$kind --minutes $(MINUTES); done

lint: $(VENV)/.installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

clean:
	rm -rf .venv .venv-3.* build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
	find nqlava train export deploy tests stress benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(VENV)/.installed: pyproject.toml constraints.txt
	@./tools/install.sh $(VENV) $(INTERPRETER)
