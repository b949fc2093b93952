# pgporter: `make` lists what there is.

# Debian keeps servers in sbin, which an ordinary user's PATH may lack.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

# Members of the demo's cluster and the first three octets of its addresses.
MEMBERS ?= 3
PREFIX ?= 127.0.1

# What on-release says where there is no git.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X github.com/pgporter/pgporter/internal/cli/command.Version=$(VERSION)
# Go as go.mod wants it, from wherever it is.
GO := scripts/with-go go
# Tests that compute for long and in one goroutine: the race detector has nothing to find there, and takes minutes for it.
COMPUTING = ^(TestAttackHostileInventory|TestAttackSecretsThatFlow|TestAttackMessagesDontQuoteTemplates|TestAttackInventories)$$
UNIT = $$($(GO) list ./... | grep -v /lab/e2e)
# Packages with files of which the tag portable chooses others: those for systems without epoll.
PORTABLE = $$(grep -rl --include='*.go' '^//go:build.*portable' internal | xargs -n 1 dirname | sort -u | sed 's|^|./|')
# Go's benchmarks: all, or those of one package: make bench-go BENCH=./internal/engine/relay
BENCH ?= ./...
# Temporary files of tests, each target's with a suffix. Each checkout has one name, which Go's cache of results takes for a part of
# what they depend on.
TEST_TMP := /tmp/pgporter-$(shell pwd | cksum | cut -d ' ' -f 1)
# A program with the race detector waits for a second before it exits, and there are many.
export GORACE ?= atexit_sleep_ms=0
# Of the comparison of failovers: scenarios, separated by commas (all if empty), how often each (0: as often as it takes), and with CLIENTS
# how many clients each application has (those of the document if empty).
SCENARIO ?=
RUNS ?= 0
# Of the comparison of speed: sections, separated by commas (all if empty), how often everything is measured, how long a run takes,
# pgbench's clients (those of the document if empty), which pgporter, and another one that it is compared with (BEFORE).
SECTION ?=
ROUNDS ?= 15
SECONDS ?= 2
CLIENTS ?=
PGPORTER ?= bin/pgporter
BEFORE ?=

# Of `make packages-test` and `make ansible-test`: releases of Debian (12 and 13 if empty). Of the former: the commit that is upgraded from
# and rolled back to (this one, under another version, if empty).
RELEASE ?=
PREVIOUS ?=

# How many planned switchovers `make switchovers` makes, and PATRONI=1 by whom.
COUNT ?= 50
PATRONI ?=

# How long `make chaos` does faults, and which: a SEED of 0 draws one.
TIME ?= 60s
SEED ?= 0

# How much `make soak` does: bytes each way, short sessions, idle sessions (20,000 open files give one service 8,250 places at most).
BYTES ?= 10737418240
SESSIONS ?= 1000000
IDLE ?= 8000

.DEFAULT_GOAL := help
.PHONY: help demo test unit e2e attack derivation trouble switchovers migration monitoring-test build packages packages-check packages-test ansible-test image image-test lint bench bench-go bench-failover chaos soak screenshots prerequisites prerequisites-bench

help: ## list the targets
	@printf 'make TARGET, where TARGET is\n\n'
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 18
	@printf '\nWhat is missing is installed with apt (as root) or named (otherwise). Any Go from 1.21 on fetches the one that\nthis is built with; where there is none, Debian\047s is installed: on Debian 12 from bookworm-backports, if apt has that source.\n'

demo: prerequisites build ## a real cluster on this machine, under load: switch over, kill, watch; Ctrl-C takes it down
	bin/pgporter-lab up --members $(MEMBERS) --prefix $(PREFIX) --door --load

test: prerequisites ## every test with the race detector, those on a real cluster last
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory e2e
	@[ "$$(id -u)" = 0 ] || echo '!!! NOT TESTED without root: virtual addresses, partitions, peers that vanish, and access on network namespaces' >&2

# Four packages at a time: much of what they take is waiting for sockets and for what others say.
unit: ## go vet, the unit tests, and a build for another system
	@scripts/progress 'go vet' $(GO) vet ./...
	@scripts/progress 'go vet of what is run by hand' $(GO) vet -tags trouble,derivation,migration,switchovers ./lab/e2e
	@scripts/progress 'go build for macOS' env GOOS=darwin $(GO) build ./...
	@PROGRESS_TMP=$(TEST_TMP)-unit scripts/progress 'unit tests' $(GO) test -race -vet=off -p 4 -timeout 15m -skip '$(COMPUTING)' $(UNIT)
	@PROGRESS_TMP=$(TEST_TMP)-computing scripts/progress 'unit tests that compute' $(GO) test -vet=off -p 2 -timeout 15m -run '$(COMPUTING)' ./internal/cli ./internal/config/plan
	@PROGRESS_TMP=$(TEST_TMP)-portable scripts/progress 'unit tests of what is portable' $(GO) test -race -vet=off -tags portable -p 4 -timeout 15m $(PORTABLE)

# Three clusters at a time: their tests wait for leader keys to expire more than they compute. The pgporters that they start have the
# race detector, the tests themselves don't: they log in thousands of times, which takes ten times as long with it.
e2e: ## the end-to-end tests (they start clusters of their own)
	@PROGRESS_TMP=$(TEST_TMP)-e2e scripts/progress 'end-to-end tests' $(GO) test -vet=off -count=1 -parallel 3 -timeout 25m ./lab/e2e/...

screenshots: prerequisites ## the pictures of the page in docs, taken anew on a real cluster (7 minutes)
	@PGPORTER_SCREENSHOTS=$(CURDIR)/docs $(GO) test -vet=off -count=1 -timeout 20m -run '^TestPage$$' ./lab/e2e

# Some of the attacks compute up to what they may; on two busy processors that takes a minute.
attack: ## the attacks that pgporter withstands: hostile inventories, senders, neighbours, answers (docs/security.md)
	@PROGRESS_TMP=$(TEST_TMP)-attack scripts/progress 'attacks' $(GO) test -vet=off -count=1 -p 2 -timeout 10m -run '^TestAttack' ./internal/...

# It tells where it is, and in the end what was compared.
derivation: prerequisites ## what follows from one answer of Patroni, compared with what it says to all paths in all states (minutes)
	@PROGRESS_TMP=$(TEST_TMP)-derivation scripts/progress 'derivation' $(GO) test -v -vet=off -count=1 -tags derivation -timeout 15m -run TestDerivation ./lab/e2e

trouble: prerequisites ## what happens to services while Patroni's API or etcd is in trouble and the cluster itself is well (minutes)
	@PROGRESS_TMP=$(TEST_TMP)-trouble scripts/progress 'APIs in trouble' $(GO) test -vet=off -count=1 -tags trouble -timeout 20m -run 'TestAPIInTrouble|TestWithoutLocalReplication' ./lab/e2e

switchovers: prerequisites ## planned switchovers in a row (COUNT=…), and the command killed at each step, under pooled clients (minutes; PATRONI=1: by Patroni alone)
	@PROGRESS_TMP=$(TEST_TMP)-switchovers scripts/progress 'switchovers' $(GO) test -v -vet=off -count=1 -tags switchovers -timeout 60m -run Switchovers ./lab/e2e -switchovers $(COUNT) $(if $(PATRONI),-patroni)

migration: prerequisites ## from a real HAProxy to pgporter and back under load, and a shadow in a crash (root; docs/migration.md)
	@PROGRESS_TMP=$(TEST_TMP)-migration scripts/progress 'migration' $(GO) test -vet=off -count=1 -tags migration -timeout 15m -run 'TestMigration|TestShared/(shadow|takeover)' ./lab/e2e

# A part of what `make e2e` does, alone.
monitoring-test: prerequisites ## HAProxy swapped for pgporter under a Prometheus that asks what Pigsty's dashboards and ours ask; alerts
	@PROGRESS_TMP=$(TEST_TMP)-monitoring scripts/progress 'monitoring' $(GO) test -vet=off -count=1 -timeout 10m -run 'TestShared/monitoring|TestAlerts|TestDashboard' ./lab/e2e ./contrib

build: ## bin/pgporter, and bin/pgporter-lab that it is tried and tested with
	@scripts/progress 'building bin/pgporter and bin/pgporter-lab' $(GO) build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/pgporter ./cmd/pgporter-lab

packages: ## Debian packages of this commit, in bin/packages: docs/install.md
	@scripts/packages

packages-check: ## are they the same when made again, and clean by lintian?
	@scripts/packages-check

packages-test: ## from HAProxy and back, with upgrades and a reboot, under load, on Debian 12 and 13 with systemd (root; RELEASE=trixie for one, PREVIOUS=COMMIT)
	@scripts/packages-test $(if $(PREVIOUS),--previous $(PREVIOUS)) $(RELEASE)

ansible-test: ## the role of contrib/ansible, there and back under load, on Debian 12 and 13 with systemd (root; RELEASE=trixie for one)
	@scripts/ansible-test $(RELEASE)

image: ## a container image of this commit, in bin/image: docs/install.md
	@scripts/image

image-test: ## run it with podman beside a real cluster: user, health, reload, stop, restart (root)
	@scripts/image-test

lint: ## gofmt, go vet, staticcheck, govulncheck, the unit's exposure
	@scripts/with-go scripts/lint

bench: prerequisites build ## speed: direct, HAProxy and pgporter (SECTION=… ROUNDS=… SECONDS=… CLIENTS=… BEFORE=…): docs/benchmarks.md
	@bin/pgporter-lab bench throughput --pgporter '$(PGPORTER)' $(if $(BEFORE),--before '$(BEFORE)',--doc docs/benchmarks.md) --section '$(SECTION)' --rounds $(ROUNDS) --seconds $(SECONDS) $(if $(CLIENTS),--clients '$(CLIENTS)')

bench-go: ## Go benchmarks (BENCH=./internal/… for those of one package)
	$(GO) test -run '^$$' -bench . -benchmem $(BENCH)

chaos: prerequisites build ## random faults on a real cluster under load (SEED=… TIME=… NETNS=1): docs/reliability.md
	@bin/pgporter-lab chaos --seed $(SEED) --time $(TIME) $(if $(NETNS),--netns)

soak: build ## bytes, sessions and descriptors under load for long (BYTES=… SESSIONS=… IDLE=… SEED=…): docs/reliability.md
	@bin/pgporter-lab soak --bytes $(BYTES) --sessions $(SESSIONS) --idle $(IDLE) --seed $(SEED)

bench-failover: prerequisites-bench build ## pgporter, HAProxy and a multi-host client in the same failovers (SCENARIO=… RUNS=… CLIENTS=…)
	bin/pgporter-lab bench failover --doc docs/benchmarks.md --scenario '$(SCENARIO)' --runs $(RUNS) $(if $(CLIENTS),--clients '$(CLIENTS)')

prerequisites:
	@scripts/prerequisites

prerequisites-bench:
	@scripts/prerequisites --bench
