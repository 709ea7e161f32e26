# Two commands matter: `make dev` starts a cluster, `make test` tests everything.
# One cargo profile serves both, so that RocksDB is compiled once; one target
# directory serves all clones.

export CARGO_TARGET_DIR ?= $(HOME)/.cache/barque/target
export CARGO_TERM_COLOR ?= auto
BARQUE := $(CARGO_TARGET_DIR)/debug/barque
BENCH  := $(CARGO_TARGET_DIR)/debug/barque-bench
SUDO   := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# libclang: bindings of RocksDB. busybox-static: the image that tests run.
PACKAGES := build-essential cmake libclang-dev busybox-static

.DEFAULT_GOAL := help
export BARQUE_CLIENTS ?= $(HOME)/.cache/barque/clients

.PHONY: help deps build clients dev test check fix bench jepsen clean

help: ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

deps: ## Install what is missing (Debian packages, cargo-nextest)
	@missing=; for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -n "$$missing" ]; then \
	  command -v apt-get >/dev/null || { echo "please install:$$missing"; exit 1; }; \
	  $(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $$missing; \
	fi

build: deps ## Build the binaries
	cargo build --locked --workspace --bins

dev: build ## Start a cluster on this machine (options: make dev ARGS="--masters 5")
	exec $(BARQUE) dev $(ARGS)

clients: deps ## Fetch the clients that tests use: the newest kubectl, Helm, the Python client
	@python3 -m pip --version >/dev/null 2>&1 || $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends python3-pip
	@python3 tests/tools/clients.py $(BARQUE_CLIENTS) || echo "not fetched: tests with these clients are skipped"

test: build clients ## Run every test
	@command -v cargo-nextest >/dev/null || cargo install --locked cargo-nextest
	BARQUE_BIN=$(BARQUE) cargo nextest run --locked --workspace $(ARGS)
	cargo test --locked --workspace --doc -q

check: deps ## The gate: formatting, lints, dependencies, docs, tests; changes nothing
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny --offline check licenses bans sources 2>/dev/null || cargo deny check licenses bans sources
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps -q
	$(MAKE) test

fix: ## Format, and apply what clippy can mend
	cargo fmt --all
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

bench: build ## Measure against etcd and probes, in one run (ARGS="--quick" or "--full")
	@dpkg -s etcd-server >/dev/null 2>&1 || $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -q etcd-server
	BARQUE_BIN=$(BARQUE) $(BENCH) all $(ARGS)
