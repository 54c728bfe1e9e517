// Command extension is what a third party writes with net/http alone: it
// registers, subscribes to telemetry, and asks for events until SHUTDOWN.
package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	base := "http://" + os.Getenv("AWS_LAMBDA_RUNTIME_API")
	name := filepath.Base(os.Args[0])
	res, _, err := call("POST", base+"/2020-01-01/extension/register",
		http.Header{"Lambda-Extension-Name": {name}}, `{"events":["INVOKE","SHUTDOWN"]}`)
	if err != nil {
		return err
	}
	id := http.Header{"Lambda-Extension-Identifier": {res.Header.Get("Lambda-Extension-Identifier")}}

	listener, err := net.Listen("tcp", ":0")
	if err != nil {
		return err
	}
	go func() {
		_ = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
		}))
	}()
	_, _, err = call("PUT", base+"/2022-07-01/telemetry", id, fmt.Sprintf(
		`{"schemaVersion":"2022-12-13","types":["platform","function"],`+
			`"buffering":{"maxItems":1000,"maxBytes":262144,"timeoutMs":25},`+
			`"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:%d/"}}`,
		listener.Addr().(*net.TCPAddr).Port))
	if err != nil {
		return err
	}

	for {
		_, body, err := call("GET", base+"/2020-01-01/extension/event/next", id, "")
		if err != nil {
			return err
		}
		if strings.Contains(string(body), `"SHUTDOWN"`) {
			return nil
		}
	}
}

func call(method, url string, header http.Header, body string) (*http.Response, []byte, error) {
	req, err := http.NewRequest(method, url, bytes.NewBufferString(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header = header.Clone()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, nil, err
	}
	if res.StatusCode/100 != 2 {
		return nil, nil, fmt.Errorf("%s %s: %s: %s", method, url, res.Status, answer)
	}
	return res, answer, nil
}
