// Command caller is a function for measurements: in each invocation it hands the
// extension an HTTP request, as Datadog's libraries do, so that the first one
// needs whatever the extension has put off. It does not mind if nobody listens.
// It is the intake as well, and takes everything. An argument like 167ms is how
// long it takes to start.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	event = `{"version":"2.0","rawPath":"/","rawQueryString":"q=shoes","headers":{"user-agent":"Mozilla/5.0"},` +
		`"requestContext":{"domainName":"api.example","http":{"method":"GET","sourceIp":"192.0.2.1"}}}`
	answer    = `{"statusCode":200}`
	lifecycle = "http://127.0.0.1:8124/lambda/"
	intake    = "127.0.0.1:9100"
)

func main() {
	if len(os.Args) > 1 {
		d, err := time.ParseDuration(os.Args[1])
		if err != nil {
			fmt.Fprintln(os.Stderr, "caller:", err)
			os.Exit(2)
		}
		time.Sleep(d)
	}
	go func() {
		_ = http.ListenAndServe(intake, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusAccepted)
		}))
	}()
	err := run("http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/invocation/")
	fmt.Fprintln(os.Stderr, "caller:", err)
	os.Exit(1)
}

// run answers invocations until the environment is gone.
func run(api string) error {
	for {
		resp, err := http.Get(api + "next")
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		id := resp.Header.Get("Lambda-Runtime-Aws-Request-Id")
		if err := post(lifecycle+"start-invocation", id, event); err == nil {
			_ = post(lifecycle+"end-invocation", id, answer)
		}
		if err := post(api+id+"/response", id, answer); err != nil {
			return err
		}
	}
}

func post(address, id, body string) error {
	req, err := http.NewRequest(http.MethodPost, address, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Lambda-Runtime-Aws-Request-Id", id)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.Body.Close()
}
