# Two commands matter: `make demo` shows Starlift at work, `make test` is the whole check of a commit.
# Both need a Rust toolchain and a C compiler, and see to everything else themselves.

SHELL := /bin/bash
.DEFAULT_GOAL := build
.PHONY: build demo test test-long

# Some dependencies ask for a protocol buffer compiler; the pure-Rust protox stands in for it (.cargo/config.toml).
PROTOX := .tools/bin/protox
STAGE := tests/stage.sh

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
	@$(STAGE) "tests" cargo test --workspace --locked
	@$(STAGE) --sum

# The tests that take minutes.
test-long: $(PROTOX)
	@rm -f target/stages.txt
	@$(STAGE) "servers" tests/servers.sh
	@$(STAGE) "build" cargo build --workspace --locked
	@$(STAGE) "build tests" cargo test --workspace --locked --no-run
	@$(STAGE) "long tests" cargo test --workspace --locked -- --ignored
	@$(STAGE) --sum
