package boot

import (
	"crypto/x509"
	"fmt"
	"strings"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/initprof/initprof/extension/changes"
)

// loadRoots gives the client that has not connected yet the certificates that
// are compiled in, where the variant of h1 says so, the settings name no others,
// and there will be a handshake. The system's, where they are deferred, are loaded
// by Go itself.
func (e *extension) loadRoots() {
	c := e.config
	if e.changes.H1 != changes.Embedded || c.CAFile != "" || c.SkipTLSVerify || c.APIKey == "" {
		return
	}
	if !strings.HasPrefix(c.MetricsURL, "https:") && !strings.HasPrefix(c.TracesURL, "https:") && !strings.HasPrefix(c.LogsURL, "https:") {
		return
	}
	pool, err := embeddedRoots()
	if err != nil {
		e.log.Errorf("certificates: %v: the system's take their place", err)
		return
	}
	e.tls.RootCAs = pool
}

// embeddedRoots parses Mozilla's roots, which golang.org/x/crypto keeps up to
// date. The bundle is data and costs nothing until it is asked for, other than
// its neighbour package fallback, which parses it when a program starts.
func embeddedRoots() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for root := range bundle.Roots() {
		certificate, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			return nil, fmt.Errorf("compiled in: %w", err)
		}
		if root.Constraint != nil {
			pool.AddCertWithConstraint(certificate, root.Constraint)
		} else {
			pool.AddCert(certificate)
		}
	}
	return pool, nil
}
