// Package intake sends bodies to the configured intakes: compression, the key's
// header, retries, proxy, certificates. flush is its only caller.
package intake

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/initprof/initprof/extension/config"
	"github.com/initprof/initprof/extension/zstd"
)

// attempts is how often a request is tried within one flush, with pauses of 50
// and 100 ms, for what a moment mends. Anything longer is the flusher's back-off.
const attempts = 3

// Client sends to the intakes. New costs no I/O besides a custom CA file.
type Client struct {
	http    *http.Client
	key     config.Secret
	timeout time.Duration // of one attempt
	backoff time.Duration // before the second attempt; doubles
}

// Request is one body for an intake, packed.
type Request struct {
	Address     string
	ContentType string
	Body        []byte // by Zstandard
}

// Pack makes a request of a body.
func Pack(address, contentType string, body []byte) Request {
	return Request{address, contentType, zstd.Append(nil, body)}
}

// TLSConfig makes the TLS settings of the configuration. Without a custom CA
// file RootCAs is roots; nil loads the system's at the first handshake.
func TLSConfig(cfg *config.Config, roots *x509.CertPool) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, InsecureSkipVerify: cfg.SkipTLSVerify}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("certificates: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificates: none in %s", cfg.CAFile)
		}
		t.RootCAs = pool
	}
	return t, nil
}

// New makes a client: proxied if configured, with a timeout for each attempt.
// Connections are kept during a flush; Idle ends them.
func New(cfg *config.Config, t *tls.Config) (*Client, error) {
	transport := &http.Transport{
		TLSClientConfig: t, DisableCompression: true,
		DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
	}
	if cfg.ProxyHTTPS != "" {
		proxy, err := url.Parse(cfg.ProxyHTTPS)
		if err != nil || proxy.Host == "" {
			return nil, errors.New("DD_PROXY_HTTPS is no address")
		}
		transport.Proxy = func(r *http.Request) (*url.URL, error) {
			if r.URL.Scheme != "https" || exempt(r.URL.Hostname(), cfg.NoProxy) {
				return nil, nil
			}
			return proxy, nil
		}
	}
	return &Client{
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // the key goes nowhere else
		}},
		key: cfg.APIKey, timeout: cfg.FlushTimeout, backoff: 50 * time.Millisecond,
	}, nil
}

func exempt(host string, list []string) bool {
	for _, e := range list {
		e = strings.TrimPrefix(e, ".")
		if e == "*" || host == e || strings.HasSuffix(host, "."+e) {
			return true
		}
	}
	return false
}

// Idle closes the connections that no request uses. The environment may be
// frozen for minutes between flushes, which they would not outlive, and a
// request on a dead connection waits for its timeout.
func (c *Client) Idle() { c.http.CloseIdleConnections() }

// ErrRejected is wrapped by errors of requests that no retry would help.
var ErrRejected = errors.New("rejected by the intake")

// BusyError is an answer that asks to be left alone for a while.
type BusyError struct {
	Status     string
	RetryAfter time.Duration // 0 if the answer does not say
}

func (e *BusyError) Error() string { return e.Status }

// Post sends a request, and tries again at once while the intake is unreachable
// or broken. An error that does not wrap ErrRejected means that the same request
// may be sent again later; *BusyError, that it should be much later.
func (c *Client) Post(ctx context.Context, r Request) error {
	wait := c.backoff
	for attempt := 1; ; attempt++ {
		err := c.once(ctx, r)
		var busy *BusyError
		if err == nil || errors.Is(err, ErrRejected) || errors.As(err, &busy) || attempt == attempts {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
			wait *= 2
		}
	}
}

func (c *Client) once(ctx context.Context, r Request) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.Address, bytes.NewReader(r.Body))
	if err != nil {
		return fmt.Errorf("%w: %v", ErrRejected, err)
	}
	req.Header.Set("Content-Type", r.ContentType)
	req.Header.Set("Content-Encoding", "zstd")
	req.Header.Set("DD-API-KEY", string(c.key))
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
	switch s := resp.StatusCode; {
	case s/100 == 2:
		return nil
	case s == http.StatusTooManyRequests || s == http.StatusServiceUnavailable:
		seconds, _ := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
		return fmt.Errorf("%s: %w", r.Address, &BusyError{resp.Status, time.Duration(seconds) * time.Second})
	case s == http.StatusRequestTimeout || s >= 500:
		return fmt.Errorf("%s: %s", r.Address, resp.Status)
	default:
		return fmt.Errorf("%s: %w: %s %s", r.Address, ErrRejected, resp.Status, bytes.TrimSpace(answer))
	}
}
