// Package intake sends bodies to the configured intakes: compression, the key's
// header, retries, proxy, certificates. flush is its only caller.
package intake

import (
	"bytes"
	"compress/gzip"
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
	"strings"
	"time"

	"github.com/initprof/initprof/extension/config"
)

// attempts is how often a request is tried within its context.
const attempts = 4

// Client sends to the intakes. New costs no I/O besides a custom CA file.
type Client struct {
	http    *http.Client
	key     config.Secret
	timeout time.Duration
	backoff time.Duration // before the second attempt; doubles
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

// New makes a client: proxied if configured, with a timeout for each attempt
// and no idle connections, which a frozen sandbox would break.
func New(cfg *config.Config, t *tls.Config) (*Client, error) {
	transport := &http.Transport{
		TLSClientConfig: t, DisableKeepAlives: true, DisableCompression: true,
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
		http: &http.Client{Transport: transport}, key: cfg.APIKey,
		timeout: cfg.FlushTimeout, backoff: 50 * time.Millisecond,
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

// ErrRejected is wrapped by errors of requests that no retry would help.
var ErrRejected = errors.New("rejected by the intake")

// Post sends a body, compressed by gzip, and retries while the intake is
// unreachable, too busy or broken. An error that does not wrap ErrRejected
// means that the same body may be sent again later.
func (c *Client) Post(ctx context.Context, address, contentType string, body []byte) error {
	var packed bytes.Buffer
	z, _ := gzip.NewWriterLevel(&packed, gzip.BestSpeed)
	if _, err := z.Write(body); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	wait := c.backoff
	for attempt := 1; ; attempt++ {
		err := c.once(ctx, address, contentType, packed.Bytes())
		if err == nil || errors.Is(err, ErrRejected) || attempt == attempts {
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

func (c *Client) once(ctx context.Context, address, contentType string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: %v", ErrRejected, err)
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Content-Encoding", "gzip")
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
	case s == http.StatusRequestTimeout || s == http.StatusTooManyRequests || s >= 500:
		return fmt.Errorf("%s: %s", address, resp.Status)
	default:
		return fmt.Errorf("%s: %w: %s %s", address, ErrRejected, resp.Status, bytes.TrimSpace(answer))
	}
}
