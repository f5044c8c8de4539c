package discharger_test

import (
	"testing"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/rules"
)

// BenchmarkDischarge measures a whole discharge on bbolt, without HTTP.
func BenchmarkDischarge(b *testing.B) {
	w := newWorld(b)
	l := w.login(caveat.ModeOpen)
	l.must()
	b.ReportAllocs()
	for b.Loop() {
		g, err := l.discharge()
		testkit.NoError(b, err)
		if _, err := g.Discharge.AppendJSON(nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPolicy measures the same discharge without a policy, and with the built-in
// default policy.
func BenchmarkPolicy(b *testing.B) {
	rules, err := rules.NewReloader(rules.ReloaderConfig{})
	testkit.NoError(b, err)
	for name, evaluator := range map[string]policy.Evaluator{"allow": policy.Allow{}, "default": rules} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, func(c *discharger.Config) { c.Policy = evaluator })
			l := w.login(caveat.ModeOpen)
			l.must()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.discharge(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkMint measures minting and encoding, and the same with the reference library.
func BenchmarkMint(b *testing.B) {
	o := caveat.Opened{Version: caveat.V2, RootKey: []byte(rootKey)}
	id := make([]byte, 220)
	id[0] = 2
	conditions := []string{"time-before " + time.UnixMilli(1_790_000_000_123).UTC().Format(time.RFC3339Nano), "declared epoch 12"}
	b.Run("discharger", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := discharger.Mint(&o, id, conditions).AppendJSON(nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("macaroon.v2", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m, err := macaroon.New(o.RootKey, id, "", macaroon.V2)
			testkit.NoError(b, err)
			for _, c := range conditions {
				testkit.NoError(b, m.AddFirstPartyCaveat([]byte(c)))
			}
			if _, err := m.MarshalJSON(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
