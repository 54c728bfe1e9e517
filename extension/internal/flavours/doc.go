// Package flavours has no code: its tests hold the build flavours of
// extension/variants.mk to what docs/cold-start-changes.md says of them.
package flavours
