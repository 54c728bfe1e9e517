// Command webfunction is a Lambda function on aws-lambda-go behind HTTP: it
// answers 404 to everything, and makes the aws.lambda span of each invocation as
// Datadog's libraries for interpreted languages do.
package main

import (
	"context"
	"os"

	"github.com/DataDog/dd-trace-go/v2/ddtrace/tracer"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
)

func main() {
	err := tracer.Start(tracer.WithAgentAddr("127.0.0.1:"+os.Getenv("DD_APM_RECEIVER_PORT")), tracer.WithService("web"),
		tracer.WithLambdaMode(false), tracer.WithLogStartup(false))
	if err != nil {
		panic(err)
	}
	lambda.Start(func(ctx context.Context, _ map[string]any) (map[string]any, error) {
		id := ""
		if c, ok := lambdacontext.FromContext(ctx); ok {
			id = c.AwsRequestID
		}
		span := tracer.StartSpan("aws.lambda", tracer.ResourceName("web"), tracer.Tag("request_id", id))
		span.Finish()
		tracer.Flush()
		return map[string]any{"statusCode": 404}, nil
	})
}
