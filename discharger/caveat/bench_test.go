package caveat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery/checkers"
	"golang.org/x/crypto/nacl/box"
)

var errRefused = errors.New("refused")

// bakeryOpen reaches the bakery's decoder, which is not exported, on the
// shortest way there is: a discharge that its checker refuses right after
// decoding. Beside the decoder that costs one copy and one split of the
// condition and one wrapped error.
func bakeryOpen(w world, id []byte) func() {
	params := bakery.DischargeParams{
		Id:  id,
		Key: bakeryPair(w.discharger),
		Checker: bakery.ThirdPartyCaveatCheckerFunc(
			func(context.Context, *bakery.ThirdPartyCaveatInfo) ([]checkers.Caveat, error) { return nil, errRefused }),
	}
	return func() { bakery.Discharge(context.Background(), params) }
}

func BenchmarkOpen(b *testing.B) {
	w := newWorld(b)
	for _, version := range versions {
		id := w.seal(b, version)
		b.Run(fmt.Sprintf("V%d", version), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := w.opener.Open(id); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBox is the share of the box in opening a V2 caveat.
func BenchmarkBox(b *testing.B) {
	w := newWorld(b)
	id := w.seal(b, V2)
	shared := agree(w.discharger.Private, w.homeserver.Public)()
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := box.OpenAfterPrecomputation(nil, id[boxAt:], (*[nonceSize]byte)(id[nonceAt:boxAt]), shared); !ok {
			b.Fatal("does not open")
		}
	}
}

func BenchmarkBakeryDecode(b *testing.B) {
	w := newWorld(b)
	for _, version := range versions {
		open := bakeryOpen(w, w.seal(b, version))
		b.Run(fmt.Sprintf("V%d", version), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				open()
			}
		})
	}
}

// BenchmarkAgainstBakery opens one caveat alternately here, a thousand times,
// and with the bakery, ten times, so that both meet the same machine. It
// reports how many times faster this package is, in the median round.
func BenchmarkAgainstBakery(b *testing.B) {
	w := newWorld(b)
	for _, version := range versions {
		id := w.seal(b, version)
		ours := func() { w.opener.Open(id) }
		theirs := bakeryOpen(w, id)
		b.Run(fmt.Sprintf("V%d", version), func(b *testing.B) {
			var ratios []float64
			for b.Loop() {
				ratios = append(ratios, perCall(10, theirs)/perCall(1000, ours))
			}
			slices.Sort(ratios)
			b.ReportMetric(ratios[len(ratios)/2], "times-faster")
		})
	}
}

// perCall is the time that one of n calls takes, in nanoseconds.
func perCall(n int, call func()) float64 {
	start := time.Now()
	for range n {
		call()
	}
	return float64(time.Since(start)) / float64(n)
}

// BenchmarkOpenUnknown opens a caveat of an unregistered homeserver.
func BenchmarkOpenUnknown(b *testing.B) {
	w := newWorld(b)
	rogue := fixedPair(b, 9)
	id := sealRaw(V2, rogue.Public, rogue.Private, w.discharger.Public, []byte("x"))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.opener.Open(id); err == nil {
			b.Fatal("opens")
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	w := newWorld(b)
	for _, version := range versions {
		b.Run(fmt.Sprintf("V%d", version), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				w.seal(b, version)
			}
		})
		s, err := NewSealer(SealerConfig{Version: version, Homeserver: w.homeserver, Discharger: w.discharger.Public})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("V%d/sealer", version), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Seal(testRootKey, testCondition); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseCondition(b *testing.B) {
	full, err := fullCondition(b).Encode()
	if err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string]string{"required": testCondition, "full": full} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseCondition([]byte(text)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncodeCondition(b *testing.B) {
	c := fullCondition(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Encode(); err != nil {
			b.Fatal(err)
		}
	}
}
