# The targets of this project. `make help` lists them.

# The Postgres of this release of Debian or Ubuntu; 15 elsewhere.
CODENAME  := $(shell . /etc/os-release 2>/dev/null && echo "$$VERSION_CODENAME")
PG        ?= $(if $(filter noble,$(CODENAME)),16,$(if $(filter trixie questing,$(CODENAME)),17,$(if \
             $(filter forky sid resolute,$(CODENAME)),18,15)))
PG_CONFIG ?= /usr/lib/postgresql/$(PG)/bin/pg_config
DESTDIR   ?=

# The feature of the library for this version of Postgres. Where only PG_CONFIG is given, it says the version.
VERSION    = $(shell $(PG_CONFIG) --version 2>/dev/null | sed -n 's/^PostgreSQL \([0-9]*\).*/\1/p')
FEATURES   = --no-default-features --features pg$(or $(VERSION),$(PG))
# What `make build` leaves for `make install`, so that the library of another version is not installed.
LIBRARY    = target/release/pg_session_jwt-$(or $(VERSION),$(PG)).so

# Tools of Rust that are installed where another version is found, or none.
CARGO_DENY = 0.20.2
CYCLONEDX  = 0.5.9
PGXN_META  = 0.7.0

# The packages of Debian that a build needs. With PG_CONFIG given, the headers of the server are there.
SETUP      ?= tools/setup
BUILD_DEPS = gcc libc6-dev libclang-dev \
             $(if $(filter file,$(origin PG_CONFIG)),postgresql-server-dev-$(PG))
# The demo needs a server in addition; the tests and benchmarks need a pooler and other extensions too.
SERVER     = postgresql-$(PG)
POOLER     = pgbouncer
NEIGHBOURS = postgresql-$(PG)-pgaudit postgresql-$(PG)-pg-qualstats postgresql-$(PG)-pg-stat-kcache
# Those that the packages are made and checked with.
PACKAGING  = build-essential debhelper debootstrap lintian postgresql-server-dev-all unzip zip
TEST       = cargo test --locked --package tests --no-fail-fast

# The dependencies of the example clients, in folders that git ignores.
NODE_MODULES = examples/drizzle/node_modules/.fetched examples/node/node_modules/.fetched
PRISMA       = examples/node/node_modules/.prisma/client/schema.prisma
VENV         = examples/python/.venv/.fetched

# pgrx and the test harness read these variables.
export PGRX_PG_CONFIG_PATH = $(PG_CONFIG)
export PG_CONFIG

# pg_buildext calls make without a target, with USE_PGXS.
.DEFAULT_GOAL := $(if $(USE_PGXS),build,help)
.PHONY: all help demo psql test setup setup-server setup-tests setup-clients clients build install writable uninstall \
        lint test-core test-integration test-matrix bench soak valgrind fmt deny clean \
        setup-packaging dist package package-check release-check

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' Makefile

demo: build setup-server ## Build, start a temporary cluster, and show how tokens are verified
	cargo run --locked --package tests --bin demo

psql: build setup-server ## Start the demo's cluster, and open psql on it
	cargo run --locked --package tests --bin demo -- --psql

test: lint test-core test-integration ## Run everything that CI runs

setup: ## Install the Debian packages that are missing
	@$(SETUP) $(BUILD_DEPS)

all: build # the name that PGXN's client and pg_buildext use

build: setup ## Build the library that Postgres loads
	cargo build --locked --release $(FEATURES)
	cp target/release/libpg_session_jwt.so $(LIBRARY)

# A superuser often has no Rust. Then the library that was built before is installed.
install: writable $(if $(shell command -v cargo),build) ## Install the extension into Postgres (DESTDIR is respected)
	@test -f $(LIBRARY) || { echo "install: $(LIBRARY) is missing: run make build, as a user who has Rust" >&2; exit 1; }
	install -d "$(DESTDIR)$$($(PG_CONFIG) --pkglibdir)" "$(DESTDIR)$$($(PG_CONFIG) --sharedir)/extension"
	install -m 755 $(LIBRARY) "$(DESTDIR)$$($(PG_CONFIG) --pkglibdir)/pg_session_jwt.so"
	install -m 644 pg_session_jwt.control sql/*.sql "$(DESTDIR)$$($(PG_CONFIG) --sharedir)/extension/"

# Checked before a build that takes minutes, where the headers of Postgres are there already.
writable:
	@$(PG_CONFIG) --version >/dev/null 2>&1 || exit 0; \
	for folder in "$(DESTDIR)$$($(PG_CONFIG) --pkglibdir)" "$(DESTDIR)$$($(PG_CONFIG) --sharedir)/extension"; do \
		while ! test -e "$$folder"; do folder=$$(dirname "$$folder"); done; \
		test -w "$$folder" || { echo "install: no write access to $$folder: run make build, and sudo make install then" >&2; exit 1; }; \
	done

uninstall: ## Remove what make install has installed
	rm -f "$(DESTDIR)$$($(PG_CONFIG) --pkglibdir)/pg_session_jwt.so"
	cd "$(DESTDIR)$$($(PG_CONFIG) --sharedir)/extension" && rm -f pg_session_jwt.control $(notdir $(wildcard sql/*.sql))

lint: setup ## Check formatting and lints
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets $(FEATURES) -- --deny warnings

test-core: setup ## Test the crates that do not depend on Postgres
	cargo test --locked --package session-jwt --package jwks-fetch --package mint \
		--package redact-statements --package verified-signatures
	cargo test --locked --package verified-signatures --features loom

test-integration: build setup-tests clients ## Test the extension in temporary clusters
	$(TEST)

test-matrix: setup setup-tests clients ## Test the extension on PostgreSQL 15 to 18, as far as the machine can get them
	tools/test-matrix

clients: $(NODE_MODULES) $(PRISMA) $(VENV) ## Fetch the dependencies of the example clients from npm and PyPI

setup-server: setup
	@$(SETUP) $(SERVER)

setup-tests: setup-server
	@$(SETUP) $(POOLER) $(NEIGHBOURS)

# Check for the programs, not for the packages: npm and venv need not come from Debian.
setup-clients: setup
	@$(SETUP) $$(command -v npm >/dev/null || echo npm) \
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

bench: build setup-server ## Measure the costs, and write docs/benchmarks.md and .svg
	@$(SETUP) $(POOLER)
	cargo run --locked --release --package benches

soak: build setup-tests ## Send a million transactions through PgBouncer, with faults
	$(TEST) --test pooler soak -- --ignored --nocapture

valgrind: build ## Test changes of identity within statements, in a server under Valgrind
	@$(SETUP) valgrind
	VALGRIND=1 $(TEST) --test plans changes

fmt: ## Format the code
	cargo fmt --all

deny: ## Check the licences, duplicate versions and sources of dependencies
	@cargo deny --version 2>/dev/null | grep -qx 'cargo-deny $(CARGO_DENY)' \
		|| cargo install --locked --version $(CARGO_DENY) cargo-deny
	cargo deny --locked check licenses bans sources

dist: setup-packaging ## Make the source tarball, PGXN's zip and the SBOM, in target/dist
	@cargo cyclonedx --version 2>/dev/null | grep -qx 'cargo-cyclonedx-cyclonedx $(CYCLONEDX)' \
		|| cargo install --locked --version $(CYCLONEDX) cargo-cyclonedx
	tools/dist

package: dist ## Build the Debian packages and the extension image's files, without a network
	tools/package

package-check: package ## Check the packages, and try each in a clean chroot of its release of Debian
	tools/package-check

release-check: package-check ## The dry run of a release: RELEASING.md
	@pgxn_meta --version 2>/dev/null | grep -qx 'pgxn_meta $(PGXN_META)' \
		|| cargo install --locked --version $(PGXN_META) pgxn_meta
	tools/release-check

setup-packaging: setup
	@$(SETUP) $(PACKAGING)

# pg_buildext cleans between two versions. The dependencies are the same for each.
clean: ## Remove the build output
	cargo clean $(if $(USE_PGXS),--release --package pg_session_jwt)
