# Build flavours of the extension, and its layer. docs/cold-start-changes.md says
# what each flavour is. Included by the root Makefile.
#
# h7   -bindnow: all dynamic symbols bound at load. Only a dynamically linked
#      binary can have any, hence the -pie flavours; on a static one it is inert.
# h8   GOAMD64=v2 / GOARM64=v8.2,lse: the instruction sets that Lambda has
# h10  reproducible: the toolchain of go.mod, no paths, no VCS stamp, no packer
# h12  one version of each module: Go's module graph has that already; inert

EXTENSION := ./extension/cmd/initprof-extension
VARIANT_ARCHS := amd64 arm64
VARIANTS := baseline integration h7 h8 h10 h12 no-h7 no-h8 no-h10 no-h12 baseline-pie h7-pie integration-pie
VARIANT_DIR := $(BIN)/variants

# Which changes a flavour carries.
variant_has = $(if $(filter integration integration-pie,$(2)),yes,$(if $(filter no-%,$(2)),$(if $(filter no-$(1),$(2)),,yes),$(if $(filter $(1) $(1)-%,$(2)),yes)))
variant_target = $(if $(call variant_has,h8,$(2)),$(if $(filter arm64,$(1)),GOARM64=v8.2$(comma)lse,GOAMD64=v2),$(if $(filter arm64,$(1)),GOARM64=v8.0,GOAMD64=v1))
variant_flags = $(if $(call variant_has,h10,$(1)),-trimpath -buildvcs=false,-buildvcs=false) $(if $(filter %-pie,$(1)),-buildmode=pie) -ldflags '-s -w$(if $(call variant_has,h7,$(1)), -bindnow)'
comma := ,

define variant_rule
.PHONY: $(VARIANT_DIR)/$(1)/$(2)
$(VARIANT_DIR)/$(1)/$(2):
	CGO_ENABLED=0 GOOS=linux GOARCH=$(1) $(call variant_target,$(1),$(2)) $$(GO) build $(call variant_flags,$(2)) -o $$@ $$(EXTENSION)
endef
$(foreach a,$(VARIANT_ARCHS),$(foreach v,$(VARIANTS),$(eval $(call variant_rule,$(a),$(v)))))

# The program that runs AppSec's firewall, a module of its own. It has one build,
# that of integration: it starts beside the extension, not before its first next.
helper_build = cd extension/appsec/helper && CGO_ENABLED=0 GOOS=linux GOARCH=$(1) $(call variant_target,$(1),integration) \
	$(GO) build -tags appsec -trimpath -buildvcs=false -ldflags '-s -w' -o $(abspath $(2)) .
define helper_rule
.PHONY: $(VARIANT_DIR)/$(1)/initprof-appsec-helper
$(VARIANT_DIR)/$(1)/initprof-appsec-helper:
	$$(call helper_build,$(1),$$@)
endef
$(foreach a,$(VARIANT_ARCHS),$(eval $(call helper_rule,$(a))))

.PHONY: variants variants-check layer appsec-helper

appsec-helper: ## bin/initprof-appsec-helper, which the extension starts where AppSec is on
	$(call helper_build,$(shell $(GO) env GOARCH),$(BIN)/initprof-appsec-helper)

variants: $(foreach a,$(VARIANT_ARCHS),$(foreach v,$(VARIANTS) initprof-appsec-helper,$(VARIANT_DIR)/$(a)/$(v))) ## the extension with each cold-start change of the build, alone, together and left out

variants-check: ## build every flavour twice and compare the bytes
	$(MAKE) --no-print-directory variants VARIANT_DIR=$(BIN)/variants
	$(MAKE) --no-print-directory variants VARIANT_DIR=$(BIN)/variants-again
	diff -r $(BIN)/variants $(BIN)/variants-again
	rm -r $(BIN)/variants-again

# layer_zip ARCH NAME: what Lambda unpacks below /opt.
define layer_zip
$(GO) run ./extension/internal/layer -o $(BIN)/layer-$(2).zip extensions/initprof-extension=$(VARIANT_DIR)/$(1)/integration \
	initprof-appsec-helper=$(VARIANT_DIR)/$(1)/initprof-appsec-helper datadog_wrapper=extension/internal/layer/datadog_wrapper
endef

layer: $(foreach a,$(VARIANT_ARCHS),$(VARIANT_DIR)/$(a)/integration $(VARIANT_DIR)/$(a)/initprof-appsec-helper) ## bin/layer-x86_64.zip and bin/layer-arm64.zip for Lambda
	$(call layer_zip,amd64,x86_64)
	$(call layer_zip,arm64,arm64)

# N cold starts of each variant in blocks: at 60 some minutes. Both benches run as
# root, in namespaces of their own. On a machine that others use as well, real-time
# priority shows the programs instead of the scheduler; it rules out CPU limits:
#     make bench-extension PRIORITY='chrt -r 5' BENCHFLAGS=--no-limits
N := 60
PRIORITY :=
BENCHFLAGS :=
.PHONY: bench-extension
bench-extension: build ## release → /next against the floor, first invokes, sizes, memory (N=60 cold starts each)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o build/floor ./extension/internal/floor
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o build/caller ./extension/internal/caller
	$(GO) build -o build/costs ./extension/internal/costs
	build/costs floor=build/floor default=bin/initprof-extension none=bin/initprof-extension,INITPROF_EXTENSION_CHANGES=none \
		appsec=bin/initprof-extension,DD_SERVERLESS_APPSEC_ENABLED=true
	$(SUDO) $(PRIORITY) $(BIN)/initprof bench $(BENCHFLAGS) -n $(N) --matrix extension/internal/costs/matrix.yaml -o build/bench-extension.json
	$(SUDO) $(PRIORITY) $(BIN)/initprof bench $(BENCHFLAGS) -n $(N) --matrix extension/internal/costs/first-invoke.yaml --function build/caller -o build/bench-first-invoke.json
	$(SUDO) $(PRIORITY) $(BIN)/initprof bench $(BENCHFLAGS) -n $(N) --matrix extension/internal/costs/first-invoke.yaml --function 'build/caller 167ms' -o build/bench-slow-runtime.json

.PHONY: test-clients
test-clients: ## the extension against datadog-go, dd-trace-go and aws-lambda-go (a module of its own)
	cd extension/testdata/clients && $(GO) test ./...
