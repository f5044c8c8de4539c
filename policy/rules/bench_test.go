package rules_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/rules"
)

// fiftyRules is a policy of fifty rules of the kinds that operators write, of
// which none matches the sample.
func fiftyRules() string {
	kinds := []string{
		`session.labels[?"role%d"].orValue("") == "admin"`,
		`now - session.created > days(10%d)`,
		`request.ip == "198.51.100.%d" && replay == "fork"`,
		`grant.ttl > duration("1%dm") || session.epoch > 100000`,
		`session.mode == "open" && user.id.endsWith(":%d.example.com")`,
		`request.ip in networks.office && user.id == "@bob%d:example.org"`,
		`now.during("Sat-Sun", "Europe/Berlin") && session.epoch == %d`,
		`user.id in lists.admins && session.device == "D%d"`,
		`has(session.expires) && session.expires - now < duration("%dm")`,
		`!sameNetwork(session.first_ip, request.ip, 24, 48) && session.epoch == %d`,
	}
	var b strings.Builder
	b.WriteString("version: 1\nnetworks: {office: [192.0.2.0/24, \"2001:db8::/32\"]}\nlists: {admins: [\"@root:example.org\"]}\npolicies:\n  fifty:\n    rules:\n")
	for i := range 50 {
		fmt.Fprintf(&b, "      - name: r%d\n        when: '%s'\n        then: deny\n", i, fmt.Sprintf(kinds[i%len(kinds)], i+1))
	}
	b.WriteString("    otherwise: allow\n")
	return b.String()
}

func BenchmarkEvaluate(b *testing.B) {
	set := loadAll(b, fiftyRules())
	for _, name := range []string{"default", "strict", "guest", "bots", "limits", "fifty"} {
		b.Run(name, func(b *testing.B) {
			in := policy.SampleInput()
			in.Policy, in.Session.Created = name, in.Now.Add(-time.Hour)
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				d, err := policy.Ask(ctx, set, in)
				if err != nil || d.Effect != policy.EffectAllow {
					b.Fatal(d, err)
				}
			}
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	fsys := fstest.MapFS{"p.yaml": {Data: []byte(fiftyRules())}}
	for _, bench := range []struct {
		name  string
		files []string
	}{{"builtin", nil}, {"fifty", []string{"p.yaml"}}} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := rules.Load(rules.Config{FS: fsys, Files: bench.files}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
