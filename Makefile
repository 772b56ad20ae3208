# Two commands matter: `make demo` shows Starlift at work, `make test` is the whole check of a commit.
# What takes longer: `make test-long`, `make chaos`, `make chaos-broken` and `make bench`.
# All need a Rust toolchain and a C compiler, and see to everything else themselves.

SHELL := /bin/bash
.DEFAULT_GOAL := build
.PHONY: build demo test chaos chaos-broken test-long bench

# Some dependencies ask for a protocol buffer compiler; the pure-Rust protox stands in for it (.cargo/config.toml).
PROTOX := .tools/bin/protox
STAGE := tests/stage.sh
# One more than there are cores: system tests wait more than they compute.
THREADS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)

build: $(PROTOX)
	cargo build --release --locked -p starlift

$(PROTOX):
	cargo install --quiet --locked --root .tools --version 0.10.0 protox --features bin

demo: $(PROTOX)
	cargo build --release --locked -p starlift -p starrocks-standin
	examples/demo.sh "$${CARGO_TARGET_DIR:-target}/release"

test: $(PROTOX)
	@$(STAGE) "format" cargo fmt --all --check
	@$(STAGE) "servers" tests/servers.sh
	@$(STAGE) "clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
	@$(STAGE) "build" cargo build --workspace --locked
	@$(STAGE) "build tests" cargo test --workspace --locked --no-run
	@RUST_TEST_THREADS=$(THREADS) $(STAGE) "tests" cargo test --workspace --locked
	@$(STAGE) --sum

# The tests that take minutes.
test-long: $(PROTOX)
	@rm -f target/stages.txt
	@$(STAGE) "servers" tests/servers.sh
	@$(STAGE) "build" cargo build --workspace --locked
	@$(STAGE) "build tests" cargo test --workspace --locked --no-run
	@$(STAGE) "long tests" cargo test --workspace --locked -- --ignored
	@$(STAGE) --sum

# Random kills, stops, restarts and lost answers, round after round: `make chaos ROUNDS=50 [SEED=1]`.
ROUNDS ?= 50
SEED ?=
CHAOS := STARLIFT_CHAOS_SEED=$(SEED) cargo test --locked -p starlift-tests chaos_costs -- --nocapture

chaos: $(PROTOX)
	@tests/servers.sh
	cargo build --locked -p starlift -p starrocks-standin
	STARLIFT_CHAOS_ROUNDS=$(ROUNDS) $(CHAOS)

# The same with workers that commit behind the coordinator's back: chaos must find lost or doubled rows, or it proves
# nothing. Ordinary builds share its directory, so the broken binary goes by a name of its own.
BROKEN := $(abspath $(or $(CARGO_TARGET_DIR),target))/debug/starlift-workers-commit

chaos-broken: $(PROTOX)
	@tests/servers.sh
	cargo build --locked -p starlift --features workers-commit
	cp $(dir $(BROKEN))starlift $(BROKEN)
	cargo build --locked -p starlift -p starrocks-standin
	@if STARLIFT_CHAOS_BINARY=$(BROKEN) STARLIFT_CHAOS_ROUNDS=10 $(CHAOS) >$(BROKEN).log 2>&1; then \
	    echo "ten rounds of chaos did not notice that workers commit; see $(BROKEN).log" >&2; exit 1; fi
	@grep -m1 '^seed [0-9]*: rows differ' $(BROKEN).log \
	    || { echo "chaos failed for another reason; see $(BROKEN).log" >&2; exit 1; }

# Starlift beside its floors and beside Sling, on this machine: `make bench [ROWS=5000000] [RUNS=3]`. Best left alone with
# the machine; the first run fills a MariaDB under target/bench.
ROWS ?= 5000000
RUNS ?= 3

bench: $(PROTOX)
	@tests/servers.sh
	cargo build --release --locked -p starlift -p starrocks-standin -p starlift-bench
	"$${CARGO_TARGET_DIR:-target}/release/starlift-bench" all --rows $(ROWS) --runs $(RUNS) --write

# What lies under deploy/, without a cluster and without a container engine. Needs python3, and npm the first time.
.PHONY: helm-test deploy-check
helm-test:
	@deploy/helm-test.sh

deploy-check:
	@deploy/tools.sh
	@.tools/deploy/python/bin/python -B deploy/check.py

# Metrics: alerts and dashboard against the documents, and each alert against made-up series. Installs promtool where it is
# missing.
.PHONY: rules-test deny
rules-test:
	@deploy/prometheus/test.sh

# Licences, sources and bans of all dependencies (.deny.toml), and their known weaknesses where that list can be fetched.
DENY := .tools/bin/cargo-deny
$(DENY):
	cargo install --quiet --locked --root .tools --version 0.20.2 cargo-deny

deny: $(DENY)
	$(DENY) --config .deny.toml check bans licenses sources
	@if $(DENY) --config .deny.toml fetch db; then $(DENY) --config .deny.toml check --disable-fetch advisories; \
	    else echo "the list of known weaknesses cannot be fetched here: advisories were not checked" >&2; fi
