# Everything that a newcomer, a developer and CI run. `make` alone lists it.

# Outside the clone, so that a fresh clone finds the compiled dependencies again.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/holdfast/target
BR := $(CARGO_TARGET_DIR)/debug/br

.PHONY: help deps servers br demo demo-s3 demo-azure test e2e sim bench check fmt lint docs test-cluster

help:
	@echo 'make demo    run the main job on an embedded cluster: load, back up, lose, restore, compare'
	@echo 'make demo-s3, make demo-azure   the same, with backup and log on a server of S3 or Azure'
	@echo 'make test    every test'
	@echo 'make e2e     only whole clusters under load, with splits, moving leaders and lost stores'
	@echo 'make test-cluster PD=host:port   the cases of `make test` that fit any cluster, on yours (TIDB, OFFICIAL_BR,'
	@echo '                                STORAGE, ALLOW_DATA: docs/compatibility.md)'
	@echo 'make sim     thousands of seeds of the simulation (SIM_SEEDS, SIM_FIRST; SIM_SEED shows one)'
	@echo 'make bench   speed as ratios to a baseline of the same run'
	@echo 'make check   what CI runs besides the tests: format, lints, docs'
	@echo 'make br      build the command: $(BR)'

# RocksDB's bindings are made with libclang at build time.
deps:
	@scripts/install-deps

br: deps
	cargo build --locked --bin br

demo: br
	scripts/demo $(BR)

demo-s3: br servers
	scripts/demo $(BR) s3

demo-azure: br servers
	scripts/demo $(BR) azure

# S3, Azure and GCS on loopback; what cannot be installed is said, and its tests are ignored.
servers:
	@scripts/install-test-servers

test: deps servers
	cargo test --locked --workspace

e2e: deps
	cargo test --locked -p e2e

# On a cluster that runs already. Cases with SQL need TIDB=[user[:password]@]host:port.
test-cluster: export E2E_PD = $(PD)
test-cluster: export E2E_TIDB = $(TIDB)
test-cluster: export E2E_OFFICIAL_BR = $(OFFICIAL_BR)
test-cluster: export E2E_STORAGE = $(STORAGE)
test-cluster: export E2E_ALLOW_DATA = $(ALLOW_DATA)
test-cluster: deps
	@test -n '$(PD)' || { echo 'which cluster? make test-cluster PD=host:port'; exit 1; }
	@# With br, for dependencies in the same build as those of `make test`.
	cargo test --locked -p e2e -p br --test it -- anywhere:: --nocapture

sim: export SIM_SEEDS ?= 5000
sim: deps
	cargo test --locked -p sim -p e2e -p br --test seeds -- --nocapture

bench: deps
	cargo run --locked -p bench

check: fmt lint docs

fmt:
	cargo fmt --all -- --check

lint: deps
	cargo clippy --locked --workspace --all-targets -- -D warnings

docs: deps
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps
