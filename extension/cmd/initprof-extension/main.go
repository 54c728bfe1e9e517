// Command initprof-extension is a Datadog-compatible Lambda extension. Lambda
// starts it from /opt/extensions; docs/extension.md lists its settings.
package main

import (
	"context"
	"os"
	"time"

	"github.com/initprof/initprof/extension/boot"
)

func main() {
	os.Exit(boot.Run(context.Background(), boot.Options{
		Start: time.Now(), Getenv: os.Getenv, Program: os.Args[0], Log: os.Stderr,
	}))
}
