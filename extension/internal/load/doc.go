// Package load holds a test of the extension's program under load, beside
// intakes that work, that are slow, down, or refuse: see `make load-extension`.
package load
