package upstream

import (
	"context"
	"crypto/tls"

	"net"
	"net/http"
	"slices"

	"time"
)

// Dialer connects to a network address.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

const dialTimeout = 10 * time.Second

// NewTransport returns a transport that keeps many idle connections, does not
// decompress, and has no timeout for an answer, since requests may be long polls. A nil
// dial connects over the network.
func NewTransport(dial Dialer) *http.Transport {
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}).DialContext
	}
	return &http.Transport{
		DialContext:           dial,
		TLSHandshakeTimeout:   dialTimeout,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   1024,
		DisableCompression:    true,
	}
}

// sameTLS reports whether two configurations have the same authorities and certificates.
func sameTLS(a, b *tls.Config) bool {
	if a == nil || b == nil {
		return a == b
	}
	sameCertificate := func(a, b tls.Certificate) bool {
		return slices.EqualFunc(a.Certificate, b.Certificate, slices.Equal[[]byte])
	}
	return a.ServerName == b.ServerName && a.RootCAs.Equal(b.RootCAs) &&
		slices.EqualFunc(a.Certificates, b.Certificates, sameCertificate)
}
