// Command subjects compiles the programs whose truth is known.
//
//	subjects [-goarch arm64] DIR [NAME…]
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/initprof/initprof/testdata/subjects"
)

func main() {
	goarch := flag.String("goarch", "", "architecture to compile for (default this machine's)")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: subjects [-goarch ARCH] DIR [NAME…]")
		os.Exit(2)
	}
	names := flag.Args()[1:]
	if len(names) == 0 {
		names = subjects.All
	}
	for _, name := range names {
		path, err := subjects.Compile(flag.Arg(0), name, subjects.Options{GOARCH: *goarch})
		switch {
		case errors.Is(err, subjects.ErrUnavailable) && flag.NArg() == 1:
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		case err != nil:
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			os.Exit(1)
		default:
			fmt.Println(path)
		}
	}
}
