package policy

import (
	"strings"
	"testing"
	"time"
)

// FuzzAnswer parses arbitrary text as a decision. Every decision that parses can
// be narrowed.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		`{"effect":"allow","ttl":"5m","caveats":["a b"],"labels":{"a":"b"},"keep_sessions":2}`,
		`{"effect":"deny","code":"x","message":"No.","soft_logout":true,"rule":"r","hash":"h"}`,
		`{"effect":"defer","retry_after":"1d"}`, `null`, `[]`, `{"Effect":"allow"}`, `{"effect":"allow"} {}`, strings.Repeat("[", 1000),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		d, err := ParseDecision([]byte(body))
		if err != nil {
			return
		}
		if d.Rule != "" || d.Hash != "" {
			t.Fatalf("rule or hash kept: %+v", d)
		}
		g := Grant{TTL: 5 * time.Minute, MaxTTL: time.Hour}
		narrowed, err := d.Narrow(g)
		if err != nil {
			t.Fatalf("%+v cannot be narrowed: %v", d, err)
		}
		if narrowed.TTL > g.MaxTTL || narrowed.TTL < 0 {
			t.Fatalf("ttl %s out of range", narrowed.TTL)
		}
	})
}
