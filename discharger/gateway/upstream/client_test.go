package upstream

import (
	"crypto/tls"
	"testing"
)

func TestSetTLSKeepsConnections(t *testing.T) {
	t.Parallel()
	trust := &tls.Config{ServerName: "hs"}
	c, err := New(Config{Address: "https://hs", TLS: trust})
	if err != nil {
		t.Fatal(err)
	}
	before := c.transport.Load()
	if c.SetTLS(trust.Clone()); c.transport.Load() != before {
		t.Error("connections are replaced without a change")
	}
	if c.SetTLS(&tls.Config{ServerName: "other"}); c.transport.Load() == before {
		t.Error("connections are kept although the name has changed")
	}
}
