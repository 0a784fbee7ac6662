# Everything a contributor runs. `make setup` and `make test` are all that a new machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
DATA := $(or $(BERTH_DATA),../shared/data)
OPENB := $(DATA)/openb

.PHONY: help setup lock crds dashboards lint unit cluster kind prepare test demo demo-down images bench bench-openb bench-planted bench-fairshare bench-backfill bench-planner clean bench-victims bench-carbon bench-spot bench-live bench-joint bench-horizon bench-interval bench-interruptions bench-queues bench-agent chaos docs reference

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(VENV)/.ready ## create .venv with the locked dependencies

$(VENV)/.ready: requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

lock: ## resolve the dependencies anew, for Python 3.11 to 3.13
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet \
	  pyproject.toml --extra agent -o requirements.lock
	$(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet \
	  pyproject.toml --extra agent --extra plots --group dev -o requirements-dev.lock

crds: ## write crds/ and the chart's copy from the pydantic models
	$(BIN)/python -m berth.api.generate crds/
	$(BIN)/python -m berth.api.generate helm/berth/files/crds

dashboards: setup ## write the chart's dashboards
	$(BIN)/python -m e2e.monitoring.dashboards

lint: setup ## style, types, import contracts, generated files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m berth.api.generate --check crds/
	$(BIN)/python -m berth.api.generate --check helm/berth/files/crds
	$(BIN)/python -m e2e.monitoring.dashboards --check

unit: setup ## unit and property tests: no cluster
	$(PYTEST) -m "not cluster and not kind"

cluster: setup ## tests on a real API server with KWOK nodes (needs Go once, to build it)
	$(PYTEST) -m "cluster and not kind"

kind: setup ## tests on real kubelets (needs a Docker engine, or root on Debian)
	$(PYTEST) -m kind

chaos: setup ## the stories of nodes that go away and of failures, with the operator killed at five moments of each
	BERTH_E2E_KILLS=$(or $(KILLS),0.3,1,2.5,5,10) $(PYTEST) e2e/test_interruptions.py e2e/test_failures.py

prepare: setup ## build what test clusters consist of, into a cache (about ten minutes, once)
	$(BIN)/python -m e2e.cluster prepare

test: lint prepare ## all of it; says what it leaves out where kind can't run
	$(BIN)/python -m e2e.suite

demo: setup ## a cluster with a fake GPU fleet, Berth and all samples
	$(BIN)/python -m e2e.demo up

demo-down: setup ## end the demo
	$(BIN)/python -m e2e.demo down

reference: setup ## write the pages and diagrams of docs/ that are made by programs
	$(BIN)/python -m berth.api.reference docs/reference
	$(BIN)/python -m berth.cli.reference docs/cli.md
	$(BIN)/python docs/.site/diagrams.py docs/img

docs: setup ## build the documentation into site/, read at site/index.html; fails on a link that leads nowhere
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --clean --quiet

images: setup ## build the container images
	$(BIN)/python -m e2e.cluster.images build

bench: setup bench-planner bench-openb ## gangs under Berth beside bare pods; fails above the limits
	$(BIN)/python -m e2e.bench.first_light --limits

bench-openb: setup ## the openb traces under our packer and FGD (says so where they are absent)
	@test -d $(OPENB) || echo "left out: there are no openb traces in $(OPENB)"
	@test ! -d $(OPENB) || for trace in default gpuspec33; do for policy in berth fgd; do \
	  $(BIN)/berth bench openb --policy $$policy --nodes $(OPENB)/openb_node_list_gpu_node.csv \
	  --pods $(OPENB)/openb_pod_list_$$trace.csv --orders $(OPENB)/orders/$$trace.jsonl.gz || exit 1; done; done

bench-planted: setup ## MIG pieces onto boards, at once, one by one and under churn, beside best fit
	$(BIN)/python -m berth.bench.planted

bench-backfill: setup ## who may pass work that waits: ours, strict order, and anybody; fails where it is not as promised
	$(BIN)/python -m berth.bench.backfill --limits

bench-fairshare: setup ## a saturated week of queues with weights 1:2:3:4; fails where one misses its share by 2 %
	$(BIN)/python -m berth.bench.fairshare

bench-carbon: setup ## jobs that wait for cleaner hours, ours and the rules of others (says so where data is absent)
	@test -d $(DATA)/carbon || echo "left out: there are no hours of carbon in $(DATA)/carbon"
	@test ! -d $(DATA)/carbon || $(BIN)/berth bench carbon --carbon $(DATA)/carbon/2022-hourly.csv.gz \
	  --jobs $(DATA)/jobs/gaia-pai-1k.csv --zones AU-SA,DE,FR,GB,US-CAL-CISO,US-MIDA-PJM

define on-spot
	@test -d $(DATA)/spot || echo "left out: there are no spot windows in $(DATA)/spot"
	@test ! -d $(DATA)/spot || for deadline in 52 70; do for overhead in 0.02 0.05 0.1 0.2; do \
	  echo "restart overhead $$overhead h"; $(BIN)/berth bench spot $(1) --deadline-hours $$deadline \
	  --restart-overhead-hours $$overhead $(foreach pool,us-west-2a_k80_8 us-west-2a_v100_1 us-west-2b_k80_8,\
	  --spot $(DATA)/spot/$(pool).jsonl.gz) || exit 1; done; done
endef

bench-spot: setup ## jobs with deadlines on recorded spot windows, beside Uniform Progress and the best possible
	$(call on-spot)

bench-live: setup ## the operator's own plan for such jobs, beside the same policies
	$(call on-spot,--live)

bench-joint: setup ## spot and carbon in one objective, in nine pools: settled in each, and free to move
	@test -d $(DATA)/spot || echo "left out: there are no spot windows in $(DATA)/spot"
	@test ! -d $(DATA)/spot || for move in "" --move; do \
	  $(BIN)/berth bench joint --spot $(DATA)/spot/aligned-nine-zones.jsonl.gz \
	  --carbon $(DATA)/carbon/2022-hourly.csv.gz $$move || exit 1; done

bench-horizon: setup ## how long 2,000 deferrable jobs take to plan; fails above the limit
	$(BIN)/python -m tests.planning.bench_horizon

bench-queues: setup ## 5,000 workloads of 30 queues on an API server, beside plain Jobs; fails where a quota is exceeded
	$(BIN)/python -m e2e.bench.queues

bench-planner: setup ## how long plans take, the planner alone; fails above the limits
	$(BIN)/python -m tests.planning.bench --limits

bench-victims: setup ## what preemption loses, beside an exact solver and the rules in use elsewhere; fails above the limits
	$(BIN)/python -m tests.planning.test_victims

bench-agent: setup ## what a node agent costs on 8 boards with 56 instances; fails above the limits
	$(BIN)/python -m tests.agent.bench

bench-interval: setup ## the automatic checkpoint interval beside the best fixed one; fails above the limit
	$(BIN)/python -m berth.bench.interval --spot $(dir $(OPENB))spot

clean: ## delete what can be made again (the build cache stays)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build site

bench-interruptions: setup ## how fast 400 gangs hear that 200 of 500 nodes go away, and that all run again elsewhere
	$(BIN)/python -m e2e.bench.interruptions
