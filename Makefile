# initprof: see `make help`.
SHELL := /bin/bash
GO ?= go
BIN := bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/initprof/initprof/profiler/cli.Version=$(VERSION)
LINT_VERSION := v2.15.0
GOFUMPT_VERSION := v0.12.0
TOOLS := $(CURDIR)/bin/tools
# sudo only where it is needed, and said so: make prints the command.
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help deps build run test test-arm64 loaders subjects lint generate bench load-extension fmt

help: ## what can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

deps: ## install what the other targets lack (apt or dnf), printing each command
	@./.ci/deps

build: appsec-helper ## bin/initprof, bin/initprof-extension and its helper for AppSec; needs Go alone
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/initprof .
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(BIN)/initprof-extension ./extension/cmd/initprof-extension

run: build ## record cold starts of this repository's extension and print the report
	$(SUDO) $(BIN)/initprof record -o initprof-extension.initprof -- $(BIN)/initprof-extension

test: ## vet and test everything; what needs root is skipped without it, and named
	@GO='$(GO)' ./.ci/test $(TESTFLAGS)

test-arm64: ## record on an emulated Neoverse-N1 with a stock arm64 kernel (Debian; no root)
	@GO='$(GO)' ./testdata/arm64/run

loaders: ## fetch the loaders of other releases that tests compare (Debian; no root)
	@./testdata/loaders/fetch

subjects: ## compile the programs whose truth is known into build/subjects
	$(GO) run ./testdata/subjects/cmd/subjects build/subjects

lint: ## gofumpt, golangci-lint with the import rule, clang-format
	@./.ci/tools $(TOOLS) $(LINT_VERSION) $(GOFUMPT_VERSION)
	@out=$$($(TOOLS)/gofumpt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not formatted (make fmt):"; echo "$$out"; exit 1; fi
	$(TOOLS)/golangci-lint run ./...
	cd extension/appsec/helper && $(TOOLS)/golangci-lint run -c $(CURDIR)/.golangci.yml --build-tags appsec ./...
	clang-format --dry-run -Werror bpf/src/*

fmt: ## format Go and C
	@./.ci/tools $(TOOLS) $(LINT_VERSION) $(GOFUMPT_VERSION)
	$(TOOLS)/gofumpt -w $$(git ls-files '*.go')
	clang-format -i bpf/src/*

generate: ## rebuild the BPF objects and bindings (clang, llvm-strip, libbpf's headers)
	$(GO) generate ./bpf

bench: build ## what watching costs: untraced, initprof, perf and strace, interleaved
	$(GO) build -o build/bench ./testdata/bench
	$(SUDO) build/bench -n 60 $(BIN)/initprof-extension

load-extension: ## 100,000 packets/s and 1,000 traces/s on the extension, beside good and bad intakes
	INITPROF_LOAD_SECONDS=10 $(GO) test -count=1 -v -timeout 10m -run TestLoad ./extension/internal/load

-include extension/variants.mk
