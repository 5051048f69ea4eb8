# What people type. `make run` shows an instance at work; `make test` is what a change has to pass.

CARGO ?= cargo

# Optimised, but quick to build: what `make run` and `make bench` use.
PROFILE ?= fast

.PHONY: help run test build bench deps install dist paper clean

help:
	@echo "make deps   install what the build needs (Debian; asks for root when something is missing)"
	@echo "make build  build the programs (target directory: $(PROFILE)/)"
	@echo "make run    start four brokers and run two MPI programs in them"
	@echo "make test   every check a change has to pass"
	@echo "make bench  measure start-up, throughput, round trips, many brokers and building blocks"
	@echo "make install  put what is built below PREFIX (DESTDIR is for packages)"
	@echo "make dist   a Debian package and archives of programs and sources, in dist/"
	@echo "make paper  paper/paper.pdf, with figures from the measurements in bench/results"
	@echo "make clean  remove what was built"

deps:
	@scripts/deps.sh

build: deps
	$(CARGO) build --workspace --bins --lib --profile $(PROFILE)

run: build
	@PROFILE=$(PROFILE) scripts/run.sh

test: deps
	$(CARGO) xtask ci

bench: build
	bench/startup --flux "$$(scripts/bin-dir.sh $(PROFILE))/flux"
	bench/throughput --flux "$$(scripts/bin-dir.sh $(PROFILE))/flux"
	$(CARGO) build -p client --examples --profile $(PROFILE)
	bench/roundtrip --programs "$$(scripts/bin-dir.sh $(PROFILE))"
	bench/overlay --programs "$$(scripts/bin-dir.sh $(PROFILE))"
	bench/micro

install: build
	PROFILE=$(PROFILE) scripts/install.sh

dist: PROFILE = release
dist: build
	PROFILE=$(PROFILE) packaging/tarball dist
	PROFILE=$(PROFILE) packaging/deb dist

paper:
	paper/build paper/paper.pdf

clean:
	$(CARGO) clean
	rm -rf examples/build bench/results
