package discharger

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/discharger/discharger/discharger/caveat"
)

func genParty(t *rapid.T, label string) Party {
	p := Party{Client: rapid.StringN(0, 12, MaxClient).Draw(t, label+"client")}
	switch rapid.IntRange(0, 2).Draw(t, label+"family") {
	case 1:
		p.Addr = netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, label+"v4")))
	case 2:
		p.Addr = netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, label+"v6"))).Unmap()
	}
	return p
}

func genNonce(t *rapid.T) Nonce {
	return Nonce(rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "nonce"))
}

func genRecord(t *rapid.T) Record {
	if rapid.Bool().Draw(t, "ended") {
		return Record{
			Ended:     rapid.Int64Range(1, 1<<42).Draw(t, "endedAt") * 1000,
			Confirmed: Confirmed{Epoch: rapid.Uint64().Draw(t, "epoch")},
		}
	}
	r := Record{
		Mode:                 caveat.Mode(rapid.IntRange(1, 3).Draw(t, "mode")),
		Created:              int64(rapid.Uint32().Draw(t, "created")) * 1000,
		UserGeneration:       rapid.Uint64().Draw(t, "userGen"),
		HomeserverGeneration: rapid.Uint64().Draw(t, "hsGen"),
		Device:               rapid.StringN(0, 80, 255).Draw(t, "device"),
		Policy:               rapid.StringMatching(`[a-z]{0,10}`).Draw(t, "policy"),
		First:                genParty(t, "first"),
	}
	r.LastUsed = r.Created + rapid.Int64Range(0, 1<<40).Draw(t, "used")*1000
	r.Last = r.First
	if rapid.Bool().Draw(t, "moved") {
		r.Last = genParty(t, "last")
	}
	if n := rapid.IntRange(0, 3).Draw(t, "labels"); n > 0 {
		r.Labels = rapid.MapOfN(rapid.StringMatching(`[a-z]{1,5}`), rapid.StringN(0, 20, 60), n, n).Draw(t, "labels")
	}
	if r.Mode != caveat.ModeRotate {
		return r
	}
	r.Confirmed = Confirmed{
		Epoch: rapid.Uint64().Draw(t, "epoch"),
		At:    r.Created + rapid.Int64Range(0, 1<<50).Draw(t, "confirmedAt"),
	}
	if r.Confirmed.Epoch > 0 {
		r.Confirmed.Nonce = genNonce(t)
	}
	if rapid.Bool().Draw(t, "successor") {
		r.Successor = &Successor{
			Nonce:    genNonce(t),
			IssuedAt: r.Confirmed.At + rapid.Int64Range(0, 1<<50).Draw(t, "issuedAt"),
			Tag:      RequestTag(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "tag")),
		}
	}
	r.LastUsed = (r.known()/1000 + rapid.Int64Range(-1<<40, 1<<40).Draw(t, "used after")) * 1000
	return r
}

func TestRecordRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := genRecord(t)
		b, err := want.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var got Record
		if err := got.UnmarshalBinary(b); err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
		for n := range b {
			if err := new(Record).UnmarshalBinary(b[:n]); err == nil {
				t.Fatalf("the first %d bytes of %x pass for a record", n, b)
			}
		}
	})
}

// TestRecordSize holds the budget that makes a session cost 160 bytes in
// Redis: a record must fit two pieces of 64 bytes, and a usual one leave room.
func TestRecordSize(t *testing.T) {
	t.Parallel()
	r := typicalRecord()
	b, err := r.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 75 { // what the store's test of memory has room for
		t.Errorf("a usual record takes %d bytes", len(b))
	}
}

func typicalRecord() Record {
	party := Party{Addr: netip.MustParseAddr("203.0.113.7"), Client: "Element X/26.11.1 (iOS 19)"}
	const day = int64(86_400_000)
	created := int64(1_790_000_000_000)
	return Record{
		Mode: caveat.ModeRotate, Created: created, Device: "ABCDEFGHIJ", LastUsed: created + 90*day,
		First: party, Last: party,
		Confirmed: Confirmed{Epoch: 25_920, Nonce: Nonce{1, 2, 3, 4, 5, 6}, At: created + 90*day},
		Successor: &Successor{Nonce: Nonce{6, 5, 4, 3, 2, 1}, IssuedAt: created + 90*day, Tag: RequestTag{1, 2, 3, 4}},
	}
}

func TestRevocationRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := Revocation{Generation: rapid.Uint64().Draw(t, "generation"), At: rapid.Int64Range(0, 1<<52).Draw(t, "at")}
		if rapid.Bool().Draw(t, "but") {
			want.Except = caveat.SessionID{rapid.Byte().Draw(t, "first"), 15: 1}
		}
		b, _ := want.MarshalBinary()
		var got Revocation
		if err := got.UnmarshalBinary(b); err != nil || got != want {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
	})
	var v Revocation
	if err := v.UnmarshalBinary(nil); err != nil || v != (Revocation{}) {
		t.Errorf("no record: %+v, %v", v, err)
	}
}

func TestRecordRefusesWhatItCannotKeep(t *testing.T) {
	t.Parallel()
	r := typicalRecord()
	r.Mode = 0
	if _, err := r.MarshalBinary(); err == nil {
		t.Error("a live record without a mode was encoded")
	}
	r = typicalRecord()
	r.Labels = map[string]string{"x": strings.Repeat("y", maxRecord)}
	if _, err := r.MarshalBinary(); err == nil {
		t.Error("a huge record was encoded")
	}
}

func FuzzRecord(f *testing.F) {
	r := typicalRecord()
	b, _ := r.MarshalBinary()
	f.Add(b)
	r.Labels = map[string]string{"role": "admin"}
	r.Last.Addr = netip.MustParseAddr("2001:db8::1")
	b, _ = r.MarshalBinary()
	f.Add(b)
	b, _ = r.ended(r.LastUsed).MarshalBinary()
	f.Add(b)
	f.Fuzz(func(t *testing.T, in []byte) {
		var r Record
		if err := r.UnmarshalBinary(in); err != nil {
			if !reflect.DeepEqual(r, Record{}) {
				t.Fatalf("an error left %+v behind", r)
			}
			return
		}
		out, err := r.MarshalBinary()
		if err != nil || !bytes.Equal(in, out) {
			t.Fatalf("%x parses, but encodes to %x, %v", in, out, err)
		}
	})
}

func FuzzRevocation(f *testing.F) {
	for _, but := range []caveat.SessionID{{}, {1, 2, 3}} {
		b, _ := Revocation{Generation: 300, At: 1_790_000_000_000, Except: but}.MarshalBinary()
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var v Revocation
		if err := v.UnmarshalBinary(in); err != nil || len(in) == 0 {
			if v != (Revocation{}) {
				t.Fatalf("an error left %+v behind", v)
			}
			return
		}
		if out, _ := v.MarshalBinary(); !bytes.Equal(in, out) {
			t.Fatalf("%x parses, but encodes to %x", in, out)
		}
	})
}

func BenchmarkRecord(b *testing.B) {
	r := typicalRecord()
	enc, _ := r.MarshalBinary()
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := r.MarshalBinary(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var out Record
			if err := out.UnmarshalBinary(enc); err != nil {
				b.Fatal(err)
			}
		}
	})
}
