// Package clients holds tests of the extension against real client libraries:
// datadog-go, dd-trace-go and aws-lambda-go, with an intake that decodes the
// formats by Datadog's own definitions.
package clients
