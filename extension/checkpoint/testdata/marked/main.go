// Command marked calls each kind of mark once; the test looks at its machine code.
package main

import "github.com/initprof/initprof/extension/checkpoint"

func main() {
	checkpoint.Reach("reached")
	checkpoint.Begin("spanned", 1)
	checkpoint.End("spanned", 1)
}
