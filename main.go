// Command initprof tells where a Lambda cold start goes.
package main

import (
	"os"

	"github.com/initprof/initprof/profiler/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr)) }
