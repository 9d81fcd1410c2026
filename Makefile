# The targets of this project. `make help` lists them.

PG        ?= 15
PG_CONFIG ?= /usr/lib/postgresql/$(PG)/bin/pg_config
DESTDIR   ?=

# The feature of the library for this version of Postgres. Where only PG_CONFIG is given, it says the version.
VERSION    = $(shell $(PG_CONFIG) --version 2>/dev/null | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p')
FEATURES   = --no-default-features --features pg$(or $(VERSION),$(PG))
CARGO_DENY = 0.20.2
PACKAGES   = gcc libc6-dev libclang-14-dev pgbouncer postgresql-$(PG) \
             postgresql-server-dev-$(PG)
# Other extensions that the tests load together with this one.
NEIGHBOURS = postgresql-$(PG)-pgaudit postgresql-$(PG)-pg-qualstats postgresql-$(PG)-pg-stat-kcache
TEST       = cargo test --locked --package tests

# The dependencies of the example clients, in folders that git ignores.
NODE_MODULES = examples/drizzle/node_modules/.fetched examples/node/node_modules/.fetched
PRISMA       = examples/node/node_modules/.prisma/client/schema.prisma
VENV         = examples/python/.venv/.fetched

# pgrx and the test harness read these variables.
export PGRX_PG_CONFIG_PATH = $(PG_CONFIG)
export PG_CONFIG

.DEFAULT_GOAL := help
.PHONY: help demo psql test setup setup-clients setup-tests clients build install lint test-core \
        test-integration test-matrix bench soak valgrind fmt deny clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | column -t -s '|'

demo: build ## Build, start a temporary cluster, and show how tokens are verified
	cargo run --locked --quiet --package tests --bin demo

psql: build ## Start the demo's cluster, and open psql on it
	cargo run --locked --quiet --package tests --bin demo -- --psql

test: lint test-core test-integration ## Run everything that CI runs

setup: ## Install the Debian packages that are missing
	@tools/setup $(PACKAGES)

build: setup ## Build the library that Postgres loads
	cargo build --locked --release $(FEATURES)

install: build ## Install the extension into Postgres (DESTDIR is respected)
	install -d "$(DESTDIR)$$($(PG_CONFIG) --pkglibdir)" "$(DESTDIR)$$($(PG_CONFIG) --sharedir)/extension"
	install -m 755 target/release/libpg_session_jwt.so "$(DESTDIR)$$($(PG_CONFIG) --pkglibdir)/pg_session_jwt.so"
	install -m 644 pg_session_jwt.control sql/*.sql "$(DESTDIR)$$($(PG_CONFIG) --sharedir)/extension/"

lint: setup ## Check formatting and lints
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets $(FEATURES) -- --deny warnings

test-core: setup ## Test the crates that do not depend on Postgres
	cargo test --locked --package session-jwt --package jwks-fetch --package mint \
		--package redact-statements

test-integration: build setup-tests clients ## Test the extension in temporary clusters
	$(TEST)

test-matrix: setup setup-tests clients ## Test the extension on PostgreSQL 15 to 18, as far as the machine can get them
	tools/test-matrix

clients: $(NODE_MODULES) $(PRISMA) $(VENV) ## Fetch the dependencies of the example clients from npm and PyPI

setup-tests: setup
	@tools/setup $(NEIGHBOURS)

# Check for the programs, not for the packages: npm and venv need not come from Debian.
setup-clients: setup
	@tools/setup $$(command -v npm >/dev/null || echo npm) \
		$$(python3 -c 'import ensurepip' 2>/dev/null || echo python3-venv)

$(NODE_MODULES): examples/%/node_modules/.fetched: examples/%/package.json examples/%/package-lock.json | setup-clients
	npm ci --prefix examples/$* --ignore-scripts --no-audit --no-fund
	touch $@

# The variables stand in for programs that Prisma would download, and that `generate` does not use.
$(PRISMA): examples/node/schema.prisma examples/node/node_modules/.fetched
	cd examples/node && CHECKPOINT_DISABLE=1 \
		PRISMA_SCHEMA_ENGINE_BINARY=/bin/true PRISMA_QUERY_ENGINE_LIBRARY=/bin/true npm run --silent generate

$(VENV): examples/python/requirements.txt | setup-clients
	python3 -m venv --clear $(@D)
	$(@D)/bin/pip install --quiet --require-hashes --only-binary :all: --requirement $<
	touch $@

bench: build ## Measure the costs, and write docs/benchmarks.md and .svg
	cargo run --locked --release --quiet --package benches

soak: build ## Send a million transactions through PgBouncer, with faults
	$(TEST) --test pooler soak -- --ignored --nocapture

valgrind: build ## Test changes of identity within statements, in a server under Valgrind
	@tools/setup valgrind
	VALGRIND=1 $(TEST) --test plans changes

fmt: ## Format the code
	cargo fmt --all

deny: ## Check the licences, duplicate versions and sources of dependencies
	@cargo deny --version 2>/dev/null | grep -qx 'cargo-deny $(CARGO_DENY)' \
		|| cargo install --locked --version $(CARGO_DENY) cargo-deny
	cargo deny --locked check licenses bans sources

clean: ## Remove the build output
	cargo clean
