# The commands of a checkout. Each makes its own virtualenv, from hash-locked requirements.
#
#   make demo                                  see it work, against a bundled simulation
#   make demo UPSTREAM=http://host:8000/v1 MODEL=name     ... against a real server
#   make demo-replicas                         three gateways on a throw-away PostgreSQL, and one of them killed; ONCE=1
#   make quick                                 the fast loop: the pure rooms, without sockets and property tests
#   make test                                  set up and run all tests, three at a time; WORKERS=0 one by one
#   make clients                               whole sessions of real clients, those too that are large to install
#   make deploy                                each alert caused and cleared, and the image's steps played; ten minutes
#   make replicas                              several gateways on one PostgreSQL, and all that goes wrong with it, and the SDKs'
#                                              scenarios when each request goes to any of three; 15 minutes, more with RUNS=50;
#                                              PUSHED=1 lets them push events to each other
#   make compat                                the package, installed, and most tests, with every Python that is here;
#                                              PYTHONS="python3.13 /opt/python/bin/python3.14" names some
#   make torture                               break it in every way, and see what holds; SHORT=1 in six minutes,
#                                              ONLY=T1 RUNS=200 one trial, as often as you like; REPLICAS=3 with
#                                              three gateways on one PostgreSQL
#   make bench                                 what things cost, beside nginx and others; SHORT=1 in some minutes,
#                                              ONLY=requests,background AGAINST=docs/charts/run.json GROWTH=1
#   make reference                             write the pages of docs/ that come from the code
#   make site                                  the documentation as a site, in .site/
#   make check                                 format, lint, imports, types (CI runs it too)
#   make lock                                  resolve the requirements anew

PYTHON  ?= python3
WORKERS ?= 3
VENV    := .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCKED  := $(PIP) --require-hashes --only-binary :all:

.PHONY: demo demo-replicas quick test clients deploy replicas compat torture figures bench reference site check lock clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	@$(BIN)/python -m demo.play $(if $(UPSTREAM),--upstream $(UPSTREAM)) $(if $(MODEL),--model $(MODEL)) $(ARGS)

demo-replicas: $(VENV)/.demo
	@$(BIN)/python -m demo.replicas $(if $(ONCE),--once) $(ARGS)

# Property tests (hypothesis) and bodies of a million values take minutes; `make test` runs them.
QUICK := tests/wire tests/core tests/config tests/observe tests/reference tests/test_docs.py tests/test_layout.py \
         $(addprefix tests/outbound/test_,breaker.py budget.py redact.py)

quick: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses $(WORKERS) -m "not hypothesis" -k "not a_million" $(QUICK) $(ARGS)

# The tests start some thousand processes; without bytecode each of them would compile everything anew.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS)

clients: export PYTHONDONTWRITEBYTECODE :=
clients: $(VENV)/.dev
	CLIENTS=all $(BIN)/python -m pytest -rs tests/clients $(ARGS)

deploy: export PYTHONDONTWRITEBYTECODE :=
deploy: $(VENV)/.dev
	DEPLOY=all $(BIN)/python -m pytest -rs --numprocesses $(WORKERS) --dist worksteal tests/deploy $(ARGS)

# Whatever starts a gateway by `start_gateway` may be added here: it gets three that look like one.
SPREAD := $(addprefix tests/acceptance/test_,lifecycle.py streams.py turns.py idempotency.py conversations.py node_sdk.py)

replicas: export PYTHONDONTWRITEBYTECODE :=
replicas: $(VENV)/.dev
	REPLICAS=all $(BIN)/python -m pytest -rs --numprocesses $(WORKERS) --dist worksteal tests/replicas $(SPREAD) $(ARGS)

compat: export PYTHONS := $(PYTHONS)
compat: $(VENV)/.dev
	@$(BIN)/python -m tests.compat

torture: $(VENV)/.dev
	@$(BIN)/python -m tests.torture

figures: $(VENV)/.dev
	@$(BIN)/python -m tests.torture.figures

bench: $(VENV)/.dev
	@$(BIN)/python -m benchmarks $(if $(SHORT),--short) $(if $(GROWTH),--growth) $(if $(ONLY),--only $(ONLY)) \
	  $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(AGAINST),--against $(AGAINST)) $(if $(SAVE),--save $(SAVE)) \
	  $(if $(GATEWAY),--gateway "$(GATEWAY)")

reference: $(VENV)/.dev
	@$(BIN)/python -m reference

site: $(VENV)/.dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/backburner check-config --config config.example.yaml > /dev/null

lock:
	for set in runtime all demo dev; do \
	  extra=$$( [ $$set = runtime ] || echo --extra $$set ); \
	  uv pip compile --quiet pyproject.toml $$extra --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-header --no-annotate --output-file requirements/$$set.txt; \
	done

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one: make PYTHON=python3.11")'
	@echo "Making a virtualenv in $(VENV) ..."
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python3 -m venv failed; on Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/.demo: $(VENV)/bin/python requirements/demo.txt pyproject.toml
	@echo "Installing the locked requirements (once) ..."
	@$(LOCKED) -r requirements/demo.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python requirements/dev.txt pyproject.toml
	@echo "Installing the locked requirements (once) ..."
	@$(LOCKED) -r requirements/dev.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.demo
