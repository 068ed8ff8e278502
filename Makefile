# Xinghuo. `make help` lists what there is; everything else is for `make check`.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

SERVICES := agent broadcast config crypto firewall ingest policy
CHECKS   := lint vet proto-check generate-check tidy-check house-check
METERS   ?= 128
RATE     ?= 50
FUZZTIME ?= 10s

module   := github.com/xinghuo-edge/xinghuo
version   = $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
revision  = $(shell git rev-parse HEAD 2>/dev/null)
ldflags   = -s -w -X $(module)/pkg/node.Version=$(version) -X $(module)/pkg/node.Revision=$(revision)
compile   = CGO_ENABLED=0 go build -trimpath -ldflags '$(ldflags)'
modules   = go list -m -f '{{.Dir}}'
# Tools are a module of their own, outside of go.work: what they need is not
# what the product needs.
install   = GOWORK=off GOBIN=$(CURDIR)/bin/tools go -C tools install

.PHONY: help
help: ## print this
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: bin/xinghuo ## build and run a whole node with simulated meters; RUN_FOR=20s bounds it
	bin/xinghuo up --meters $(METERS) --rate $(RATE) $(if $(RUN_FOR),--for $(RUN_FOR))

.PHONY: build
build: bin/xinghuo bin/fleet $(SERVICES:%=bin/xinghuo-%) ## build every binary into bin/

.PHONY: test
test: ## every test that needs no container engine, with the race detector
	go test -race -shuffle=on work

.PHONY: e2e
e2e: bin/xinghuo ## the whole node's tests alone, from its built binary
	go test -race -shuffle=on -count=1 ./tests/...

.PHONY: fuzz
fuzz: ## fuzz each parser of outside bytes for FUZZTIME (10s)
	tools/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: bench-node bench-journal ## measure ours beside its peers, and write bench/results/

.PHONY: bench-node
bench-node: build bin/bench ## measure the whole node
	bin/bench -area node

.PHONY: bench-journal
bench-journal: bin/bench ## measure the journal beside others'
	bin/bench -area journal

.PHONY: check
check: $(CHECKS) ## lint, formats, contracts, generated files, modules, rules of the house

.PHONY: generate
generate: generate-proto generate-bpf generate-policy ## make everything that is generated and committed

.PHONY: fmt
fmt: bin/tools/golangci-lint ## format all Go files
	bin/tools/golangci-lint fmt $$($(modules) | sed 's,$$,/...,')

.PHONY: tools
tools: $(addprefix bin/tools/,buf protoc-gen-go protoc-gen-go-grpc gofumpt golangci-lint grpcurl) ## build the pinned developer tools into bin/tools/

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist

# What is built. go knows best what is out of date.
.PHONY: FORCE
FORCE:

bin/xinghuo: FORCE
	$(compile) -o $@ ./services/node/cmd/xinghuo

bin/fleet bin/bench: bin/%: FORCE
	$(compile) -o $@ ./$*/cmd/$*

bin/xinghuo-%: FORCE
	$(compile) -o $@ ./services/$*/cmd/$*

# Each tool by itself, so that nothing waits for golangci-lint, which takes
# minutes, but who lints.
bin/tools/buf:                package := github.com/bufbuild/buf/cmd/buf
bin/tools/protoc-gen-go:      package := google.golang.org/protobuf/cmd/protoc-gen-go
bin/tools/protoc-gen-go-grpc: package := google.golang.org/grpc/cmd/protoc-gen-go-grpc
bin/tools/gofumpt:            package := mvdan.cc/gofumpt
bin/tools/golangci-lint:      package := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
bin/tools/grpcurl:            package := github.com/fullstorydev/grpcurl/cmd/grpcurl
bin/tools/%: tools/go.mod tools/go.sum
	$(install) $(package)
	@touch $@

# The parts of check; CI takes them one by one, for its timings.
.PHONY: checks $(CHECKS)
checks:
	@echo $(CHECKS)

lint: bin/tools/golangci-lint
	bin/tools/golangci-lint run $$($(modules) | sed 's,$$,/...,')

vet:
	go vet work

proto-check: bin/tools/buf
	bin/tools/buf lint
	tools/breaking.sh

generate-check: bin/tools/buf bin/tools/protoc-gen-go bin/tools/protoc-gen-go-grpc
	tools/generated.sh

tidy-check:
	tools/tidy.sh

house-check:
	go test -count=1 ./tests/house

# The parts of generate.
.PHONY: generate-proto generate-bpf generate-policy
generate-proto: bin/tools/buf bin/tools/protoc-gen-go bin/tools/protoc-gen-go-grpc
	bin/tools/buf generate

generate-bpf: # needs clang-19, llvm-19 and libbpf-dev
	go generate ./bpf/...

generate-policy: # needs llvm-19-dev, libclang-19-dev, clang-19 and lld-19; builds TinyGo once
	go generate ./services/policy/modules
