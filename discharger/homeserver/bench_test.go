package homeserver

import (
	"context"
	"testing"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/caveat"
)

// BenchmarkVerify is all of it, from the text on, for a bundle not seen before.
func BenchmarkVerify(b *testing.B) {
	w := newWorld(b, func(c *Config) { c.CacheBytes = -1 })
	benchmarkVerify(b, w, w.bundle(b, caveat.ModeRotate))
}

// BenchmarkVerifyStandard is the same with the standard form of the bundle.
func BenchmarkVerifyStandard(b *testing.B) {
	w := newWorld(b, func(c *Config) { c.CacheBytes = -1 })
	benchmarkVerify(b, w, standard(b, w.bundle(b, caveat.ModeRotate)))
}

// BenchmarkVerifyAgain is all of it for a bundle seen before.
func BenchmarkVerifyAgain(b *testing.B) {
	w := newWorld(b, nil)
	benchmarkVerify(b, w, w.bundle(b, caveat.ModeRotate))
}

func benchmarkVerify(b *testing.B, w *world, text string) {
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Verify(ctx, text, someClient); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkVerifyMacaroonV2 is the macaroon library alone with the same bundle:
// not from base64 on, with the root key at hand, no condition checked.
func BenchmarkVerifyMacaroonV2(b *testing.B) {
	w := newWorld(b, nil)
	data := mustDecode(b, standard(b, w.bundle(b, caveat.ModeRotate)))
	var s macaroon.Slice
	if err := s.UnmarshalBinary(data); err != nil {
		b.Fatal(err)
	}
	root := w.cfg.Keys[0].rootKey(s[0].Id())
	b.ReportAllocs()
	for b.Loop() {
		var s macaroon.Slice
		if err := s.UnmarshalBinary(data); err != nil {
			b.Fatal(err)
		}
		if _, err := s[0].VerifySignature(root[:], s[1:]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMint(b *testing.B) {
	w := newWorld(b, nil)
	p := alice(caveat.ModeRotate)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Mint(p); err != nil {
			b.Fatal(err)
		}
	}
}
