# The two that a newcomer needs: `make demo` and `make test`.
# Everything here but the targets under "Needs more" runs with Go, npm and a
# POSIX shell alone.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

MODULES  := schemas sdk plugins agent aggregator testbed
VERSION  ?= 0.1.0
LDFLAGS  := -s -w -X main.version=$(VERSION)
# No C compiler is needed, and the build is the same on every machine.
export CGO_ENABLED := 0

BIN    := bin
ENGINE := $(BIN)/libchdb.so
PROGRAMS := ./agent/cmd/cavra ./agent/cmd/cavra-pkcs11 ./aggregator/cmd/cavra-aggregator ./plugins/cmd/cavra-connector-fs ./plugins/cmd/cavra-formats

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

.PHONY: build
build: ## Build the programs into bin/
	@mkdir -p $(BIN)
	go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ $(PROGRAMS)

.PHONY: engine
engine: ## Fetch the pinned ClickHouse engine library into bin/ (npm, verified by integrity hash)
	@deploy/engine/fetch.sh $(ENGINE)

.PHONY: demo
demo: build engine ## Scan a model tree, end to end, and leave the posture page running (MODELS=/path for your own; DEMO_ONCE=1 to stop after the table)
	go run ./testbed/cmd/demo -bin $(BIN) $(if $(MODELS),-models '$(MODELS)') $(if $(DEMO_ONCE),-once)

.PHONY: test
test: build engine ## Pass every test that needs Go and npm only
	go vet $(foreach m,$(MODULES),./$(m)/...)
	go test -timeout 15m $(foreach m,$(MODULES),./$(m)/...)

# Needs more: Java and Maven. Under testbed/postgres/run.sh, the aggregators that
# share a group share a PostgreSQL as well.
KAFKA_TESTS := go test -tags kafka -count=1 -run Kafka

.PHONY: test-kafka
test-kafka: build engine ## The Kafka tests and the crash scenario over Apache Kafka, with kills of the broker and a rebalance (needs Java and Maven)
	CAVRA_CHAOS=1 $(KAFKA_TESTS) -timeout 15m ./testbed/kafka ./testbed/scenario ./aggregator/internal/ingest/kafka

# Needs more: PostgreSQL.
.PHONY: test-postgres
test-postgres: ## Pass the control store's tests on PostgreSQL (needs Debian's package postgresql)
	cd aggregator && ../testbed/postgres/run.sh go test -count=1 ./internal/control/...

# Needs more: Python, PyPI, and SoftHSM.
.PHONY: test-keys
test-keys: build engine ## Agents' keys in AWS KMS and identities of AWS STS, against moto, and keys in a PKCS #11 token (needs python3 with pip, and Debian's package softhsm2)
	test -e .cache/moto/ready || { python3 -m venv .cache/moto && .cache/moto/bin/pip install --quiet 'moto[server,kms]==5.2.5' && touch .cache/moto/ready; }
	cd agent && CAVRA_MOTO_PYTHON=$(CURDIR)/.cache/moto/bin/python go test -tags keys -count=1 ./internal/keys/...
	cd agent && CAVRA_MOTO_PYTHON=$(CURDIR)/.cache/moto/bin/python go test -tags keys -count=1 -run KMS .
	CAVRA_MOTO_PYTHON=$(CURDIR)/.cache/moto/bin/python go test -tags keys -count=1 -v -run 'TestAgentWithAToken|TestJoinByAWS' ./testbed/scenario

# Needs more: Chromium.
.PHONY: test-web
test-web: build engine ## Drive the page in a real browser (needs Debian's package chromium)
	testbed/web/run.sh

# Needs more: Python.
.PHONY: test-python
test-python: ## Compare the pickle scanner with CPython's unpicklers (needs python3)
	cd plugins && go test -tags python ./formats/pickle

# Needs more: Python, and torch from PyPI, which takes 2 GB.
.PHONY: test-torch
test-torch: ## Compare the pickle scanner with torch's weights-only unpickler as well (needs python3 with pip)
	test -e .cache/torch/ready || { python3 -m venv .cache/torch && .cache/torch/bin/pip install --quiet torch==2.15.0 numpy && touch .cache/torch/ready; }
	cd plugins && CAVRA_FUZZ_TORCH=1 CAVRA_FUZZ_PYTHON=$(CURDIR)/.cache/torch/bin/python go test -tags python -v -run TestFuzzAgainstCPython ./formats/pickle

# Needs more: Python, and PyPI. All of it takes 6 GB.
.PHONY: real-models
real-models: build ## Scan 1,300 models that real frameworks save, and print the false alarms (needs python3 with pip)
	go run ./testbed/realmodels -bin $(BIN)

.PHONY: real-models-small
real-models-small: build ## The same with scikit-learn, scipy, pandas and numpy alone; more than 2 % of alarms fail
	go run ./testbed/realmodels -bin $(BIN) -small

# Needs more: Python, and openssl.
.PHONY: bench
bench: build engine ## Measure against picklescan, openssl, cat, and ingest (needs python3 with pip, and openssl)
	go run ./testbed/bench -bin $(BIN)

# Needs more: Python.
.PHONY: bench-peers
bench-peers: build engine ## Compare detection with picklescan, modelscan, fickling and modelaudit (needs python3 with pip)
	go run ./testbed/bench -bin $(BIN) -peers

# Needs more: a C compiler.
.PHONY: zero-trust
zero-trust: build engine ## Attempts of hostile plugins and what stopped each, canaries looked for in captured traffic, attacks on identities, and edits of evidence (needs cc)
	cd sdk && go test -tags hostile -count=1 -v -run 'TestSandbox|TestEgressOf|TestConnectorNames|TestServeGivesUp|TestHostile|TestNothingGetsAway' ./plugin
	go test -count=1 -v -run 'TestNobodyTracesTheAgent|TestWithoutUserNamespaces|TestAgentLinksNoParser|TestCapacity' ./agent ./testbed/architecture
	go test -count=1 -v -run 'TestExhaustionIsAFinding' ./agent/internal/inspect/pluginhost
	CAVRA_ZERO_TRUST=1 go test -count=1 -v -run 'TestNothingOfAnArtifactLeaves|TestHostileSenders|TestIdentityAttacks|TestEvidenceAttempts' ./testbed/scenario

.PHONY: chaos
chaos: build engine ## Faults in a running fleet: reports signed and present after each, and the time to recover
	cd testbed && CAVRA_CHAOS=1 go test -count=1 -timeout 10m -v -run 'TestChaos$$' ./scenario

.PHONY: chaos-long
chaos-long: build engine ## The same with faults of half a minute, twice over, and over Apache Kafka (needs Java and Maven; takes three quarters of an hour)
	cd testbed && CAVRA_SCENARIO_LONG=1 go test -count=1 -timeout 60m -v -run 'TestChaos$$' ./scenario
	CAVRA_SCENARIO_LONG=1 testbed/postgres/run.sh go test -tags kafka -count=1 -timeout 60m -v -run 'TestChaosOverKafka' ./testbed/scenario

.PHONY: fleet
fleet: build engine ## 10,000 simulated agents against one aggregator: rates, latencies, memory and processors (takes 15 minutes, and 40 at most)
	ulimit -n $$(ulimit -Hn) && go run ./testbed/cmd/fleet -bin $(BIN)

.PHONY: spool-long
spool-long: ## 1,000 kills of the spool at random, 1,000 inside a write, and 20 times as many faults of its disk
	cd agent && CAVRA_SPOOL_LONG=1 go test -count=1 -timeout 60m -v -run 'TestKilledAtRandom|TestKilledInsideAWrite|TestTheDiskFails' ./internal/spool

.PHONY: identity-long
identity-long: build engine ## 1,000 kills while an agent's certificate rotates (takes some ten minutes)
	cd testbed && CAVRA_SCENARIO_LONG=1 go test -count=1 -timeout 60m -v -run 'TestKilledWhileCertificatesRotate' ./scenario

.PHONY: scenario-long
scenario-long: build engine ## The crash scenario with 2,000 files and more kills (takes some five minutes)
	cd testbed && CAVRA_SCENARIO_LONG=1 go test -count=1 -timeout 20m -v -run 'TestKilledAnywhere$$' ./scenario

# Needs more: Java and Maven.
.PHONY: scenario-long-kafka
scenario-long-kafka: build engine ## The same over Apache Kafka (needs Java and Maven; takes some ten minutes)
	CAVRA_SCENARIO_LONG=1 $(KAFKA_TESTS) -timeout 40m -v ./testbed/scenario

.PHONY: test-alone
test-alone: ## Build and vet each module without the workspace
	@for m in $(MODULES); do echo "$$m"; (cd $$m && GOWORK=off go build ./... && GOWORK=off go vet ./...); done

.PHONY: generate
generate: ## Write the generated code and contracts anew (buf, OpenAPI)
	cd schemas && rm -rf gen && \
	  GOWORK=off go run github.com/bufbuild/buf/cmd/buf@v1.75.0 lint && \
	  GOWORK=off go run github.com/bufbuild/buf/cmd/buf@v1.75.0 generate --template buf.gen.plugin.yaml --path proto/cavra/plugin && \
	  GOWORK=off go run github.com/bufbuild/buf/cmd/buf@v1.75.0 generate --template buf.gen.connect.yaml --path proto/cavra/enrol --path proto/cavra/agent

.PHONY: lint
lint: ## gofmt and golangci-lint, module by module
	@test -z "$$(gofmt -l $(MODULES))" || { echo "not formatted:"; gofmt -l $(MODULES); exit 1; }
	@for m in $(MODULES); do echo "$$m"; (cd $$m && go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 run --config ../.golangci.yml ./...); done

FUZZTIME ?= 10s
.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZTIME (default 10s) each
	@testbed/fuzz.sh $(FUZZTIME)

.PHONY: clean
clean: ## Delete what was built and fetched
	rm -rf $(BIN) .cache dist
