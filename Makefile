# Thin: what a target does is in scripts/. CONTRIBUTING.md says how long each takes.
SHELL := bash
.DEFAULT_GOAL := help
.PHONY: help run test check faults prove-folders prove-kills prove-noise prove-tiff prove-unlike fuzz soak bench bench-peers ui cross test-cross vm-camera vm-service model dist install

ARGS ?=
PREFIX ?= /usr
DESTDIR ?=
ROUNDS ?= 200
KILLS ?= 2000
FIELDS ?= 100
RUNS ?= 1000000
MINUTES ?= 90

help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | while IFS=$$'\t' read -r target what; do \
		printf '  make %-12s %s\n' "$$target" "$$what"; done

run: ## build and start, with the virtual microscope; ARGS="--source folder:PATH"
	@scripts/run $(ARGS)

test: ## install what is missing, check, and run all tests
	@scripts/setup test
	@scripts/ui
	@scripts/check
	@scripts/test $(ARGS)

check: ## format, lints, docs, policy, spelling, page; without running the tests
	@scripts/setup test
	@scripts/ui
	@scripts/check $(ARGS)

faults: ## random faults, ROUNDS=200 of them; then nothing may be lost, doubled, left over or overwritten
	@scripts/setup test
	@scripts/ui
	@scripts/faults $(ROUNDS)

prove-folders: ## all tools that bring images into a watched folder; ARGS=ROUND for one: is each page taken once
	@scripts/setup test folders
	@scripts/ui
	@scripts/prove-folders $(ARGS)

prove-kills: ## kill -9 at random moments, KILLS=2000 of them; then nothing acknowledged may be lost
	@scripts/setup test
	@scripts/ui
	@scripts/prove-kills $(KILLS)

prove-noise: ## empty fields with noise of many kinds, FIELDS=100 of each; none may show objects
	@scripts/setup test
	@scripts/ui
	@scripts/prove-noise $(FIELDS)

prove-tiff: ## FILES=4000 TIFFs of every kind that can be combined: do independent readers see what we see
	@scripts/setup test
	@scripts/ui
	@scripts/prove-tiff $(FILES)

prove-unlike: ## how many real pictures are said to be unlike what their model knows, and how many others are
	@scripts/setup test
	@scripts/ui
	@scripts/prove-unlike

fuzz: ## RUNS=1000000 made-up and damaged files for all readers: no panic, no hang, bounded memory
	@scripts/setup test
	@scripts/ui
	@scripts/fuzz $(RUNS)

soak: ## MINUTES=90 of capture with three viewers, one of them stuck: is it flat, and was it there
	@scripts/setup run
	@scripts/ui
	@scripts/soak $(MINUTES)

bench: ## how fast it is here: frames a second, CPU by stage, memory
	@scripts/bench $(ARGS)

bench-peers: ## beside StarDist, scikit-image, ONNX Runtime, OpenVINO: accuracy, speed, memory; wants RETICLE_DATA
	@scripts/bench-peers $(ARGS)

ui: ## build the page into ui/dist
	@scripts/setup run
	@scripts/ui

cross: ## build for aarch64; prints the path of the stripped binary
	@cross/build

test-cross: ## segment three images with the aarch64 build under qemu and natively, and compare every byte
	@cross/test

vm-camera: ## a real kernel with a virtual camera in qemu, and our program on it
	@scripts/setup vm
	@scripts/vm-camera $(ARGS)

vm-service: ## a Debian with systemd in qemu, and our service in it: start, sandbox, watchdog, power cut
	@scripts/setup vm
	@scripts/vm-service $(ARGS)

model: ## train a built-in model again (an hour); ARGS=phase for that one; wants RETICLE_DATA
	@scripts/model $(ARGS)

dist: ## an archive to install from, with its sha256, in out/; ARGS=aarch64 for that
	@scripts/dist $(ARGS)

install: ## install under DESTDIR (built before, without root: make run, or make dist)
	@DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" scripts/install
