// Command lambdago is a function built on AWS's own runtime client for Go, for
// the sandbox's tests: a client that nobody wrote with the sandbox in mind.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

type request struct {
	Name string `json:"name"`
	Fail bool   `json:"fail"`
}

type response struct {
	Greeting  string `json:"greeting"`
	RequestID string `json:"requestId"`
	ARN       string `json:"arn"`
	Deadline  bool   `json:"deadline"`
}

func handle(ctx context.Context, r request) (*response, error) {
	if r.Fail {
		return nil, errors.New("asked to fail")
	}
	fmt.Println("handling", r.Name)
	lc, _ := lambdacontext.FromContext(ctx)
	_, deadline := ctx.Deadline()
	return &response{Greeting: "hello " + r.Name, RequestID: lc.AwsRequestID, ARN: lc.InvokedFunctionArn, Deadline: deadline}, nil
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "sigterm" {
		// Makes the client register an internal extension, so that it gets SIGTERM.
		lambda.StartWithOptions(handle, lambda.WithEnableSIGTERM(func() { fmt.Println("terminated") }))
		return
	}
	lambda.Start(handle)
}
