.DEFAULT_GOAL := help
ENV ?= dev
.PHONY: help run test test-versions check sam-test bench footprint build deploy

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 15

run: ## Serve the API at http://localhost:3000 on a private PostgreSQL with demo data, or on DATABASE_URL (ARGS="--port 4000 --no-schedule")
	@cargo run --package snapshots -- serve $(ARGS)

test: ## Run all tests, on a private PostgreSQL
	cargo test --workspace

test-versions: ## Run the integration tests on the oldest and the newest PostgreSQL, from npm (ARGS="-- part-of-a-name")
	@tools/postgres-versions/run 14 18 $(ARGS)

check: ## Check formatting, lints and documentation
	cargo fmt --all --check && cargo clippy --workspace --all-targets -- --deny warnings && RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps

sam-test: ## Build the Lambda functions and run each one in Docker with the SAM CLI, on a private PostgreSQL
	@tools/sam-test/run

bench: ## Measure against plain SQL and bare programs, and write benches/RESULTS.md (about 50 minutes, and 10 to build; ARGS="archive idle" prints these figures alone)
	cargo build --release --bins && cargo build --release --package benchmarks && target/release/benchmarks $(ARGS)

footprint: ## Measure the released functions: size, cold start, memory (their build takes about 10 minutes)
	cargo build --release --bins && cargo build --release --package benchmarks && target/release/benchmarks footprint

build: ## Build the Lambda functions for deployment (needs the SAM CLI and cargo-lambda; ARGS="--parameter-overrides Architecture=x86_64")
	sam build $(ARGS)

deploy: build ## Deploy to AWS, asking for the parameters (ENV=dev, or ENV=prod)
	sam deploy --guided --config-env $(ENV)
