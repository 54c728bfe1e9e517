// Command function is a Lambda function on aws-lambda-go that sends a metric, a
// trace and a log line in each invocation, with Datadog's own clients.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/DataDog/datadog-go/v5/statsd"
	"github.com/DataDog/dd-trace-go/v2/ddtrace/tracer"
	"github.com/aws/aws-lambda-go/lambda"
)

func main() {
	metrics, err := statsd.New("127.0.0.1:"+os.Getenv("DD_DOGSTATSD_PORT"), statsd.WithoutTelemetry())
	if err != nil {
		panic(err)
	}
	err = tracer.Start(tracer.WithAgentAddr("127.0.0.1:"+os.Getenv("DD_APM_RECEIVER_PORT")), tracer.WithService("orders"),
		tracer.WithLambdaMode(false), tracer.WithLogStartup(false))
	if err != nil {
		panic(err)
	}
	lambda.Start(func(_ context.Context, event map[string]any) (map[string]any, error) {
		fmt.Println("the function says hello")
		span := tracer.StartSpan("handle", tracer.ResourceName("order"), tracer.Tag("kind", event["kind"]))
		if err := metrics.Incr("orders.handled", []string{"kind:book"}, 1); err != nil {
			return nil, err
		}
		if err := metrics.Distribution("orders.size", 3, nil, 1); err != nil {
			return nil, err
		}
		span.Finish()
		tracer.Flush()
		return event, metrics.Flush()
	})
}
