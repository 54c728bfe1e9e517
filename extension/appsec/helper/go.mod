// The helper is a program of its own, so that the WAF library enters neither the
// main module nor the extension's binary.
module github.com/initprof/initprof/extension/appsec/helper

go 1.26.0

toolchain go1.26.8

require github.com/DataDog/go-libddwaf/v4 v4.10.0

require (
	github.com/ebitengine/purego v0.8.3 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	golang.org/x/sys v0.32.0 // indirect
)
