# Everything a person types. `make book` and `make test` need Python 3.10 to 3.13 and, once, a network for pip.
PYTHON ?= python3
PY := .venv/bin/python

.PHONY: help venv book book-student teach release grade test lock clean
.DEFAULT_GOAL := help

help:
	@echo "make book          run every notebook, build the book, print where it is"
	@echo "make book-student  build it without the solutions of its exercises as well"
	@echo "make test          test the library, the notebooks, the problem sets and the built pages"
	@echo "make venv          only make the environment in .venv"
	@echo "make teach         only make the graders' environment in .venv-teach"
	@echo "make release       write the student editions of the problem sets to assignments/release (TO=DIR)"
	@echo "make grade SUBMITTED=DIR   grade what students handed in; results in grades (OUT=DIR, HIDDEN_TESTS=DIR)"
	@echo "make lock          write both lock files anew from pyproject.toml"
	@echo "make clean         remove the built book (and what its notebooks computed)"

venv: .venv/installed

.venv/locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "The book needs Python 3.10 to 3.13. Name one: make book PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv --clear .venv
	$(PY) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@# Notebook kernels are reached from this machine alone; without this each start warns that it is not encrypted.
	@mkdir -p .venv/etc/ipython && echo "c.IPKernelApp.log_level = 40" > .venv/etc/ipython/ipython_kernel_config.py
	@touch $@

# Editable, so that the notebooks run with the library as it is in this folder.
.venv/installed: .venv/locked pyproject.toml
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

book: venv
	@$(PY) tools/build_book.py

book-student: book
	@$(PY) tools/student_edition.py

# nbgrader has an environment of its own; students' notebooks run in the book's.
teach: .venv-teach/installed

.venv-teach/installed: requirements-teach.lock
	$(PYTHON) -m venv --clear .venv-teach
	.venv-teach/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-teach.lock
	@touch $@

release: teach
	@.venv-teach/bin/python assignments/grading/release.py $(if $(TO),--to "$(TO)")

grade: venv teach
	@test -n "$(SUBMITTED)" || { echo "Name the folder of what students handed in: make grade SUBMITTED=DIR"; exit 1; }
	@.venv-teach/bin/python assignments/grading/grade.py "$(SUBMITTED)" $(if $(OUT),--out "$(OUT)") $(if $(HIDDEN_TESTS),--hidden-tests "$(HIDDEN_TESTS)")

# The library, the notebooks, the problem sets, the book and its pages, two tasks at a time. ONCE=1: no notebook twice.
test: venv
	@$(PY) tools/run_tests.py $(if $(ONCE),--once)

lock: venv
	$(PY) -m pip install --quiet --disable-pip-version-check uv
	$(PY) tools/lock.py

clean:
	rm -rf _build
