package session

import (
	"bytes"
	"cmp"
	"encoding"
	"encoding/hex"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
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

// genEnd draws kind, cause and code of an end, without a time.
func genEnd(t *rapid.T) revocation.End {
	return revocation.End{
		Soft: rapid.Bool().Draw(t, "soft"), Cause: rapid.SampledFrom(causeCodes[:]).Draw(t, "cause"),
		Code: rapid.StringMatching(`([a-z_]{1,64})?`).Draw(t, "code"),
	}
}

func genSession(t *rapid.T, label string) caveat.SessionID {
	return caveat.SessionID{rapid.Byte().Draw(t, label), 15: 1}
}

func genRecord(t *rapid.T) Record {
	if rapid.Bool().Draw(t, "ended") {
		end := genEnd(t)
		end.At = rapid.Int64Range(1, 1<<42).Draw(t, "endedAt") * 1000
		return Record{
			End: end, Device: rapid.StringN(0, 512, -1).Draw(t, "device"),
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
		}
		switch rapid.IntRange(0, 2).Draw(t, "answered") {
		case 1:
			r.Successor.Tag = RequestTag(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "tag"))
			r.Successor.Tag[0] |= 1
		case 2:
			r.Successor.report(r.Confirmed.At+rapid.Int64Range(0, 1<<40).Draw(t, "reported"), r.Confirmed)
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
				t.Fatalf("the first %d bytes of %x were read as a record", n, b)
			}
		}
	})
}

// TestRecordSize tests the budget that makes a session cost 160 bytes in Redis: a
// typical record has room to spare in two pieces of 64 bytes.
func TestRecordSize(t *testing.T) {
	t.Parallel()
	r := typicalRecord()
	b, err := r.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 75 { // the size in the memory test of the store
		t.Errorf("a typical record takes %d bytes", len(b))
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

func genRevocation(t *rapid.T) GenerationRecord {
	v := GenerationRecord{Generation: rapid.Uint64().Draw(t, "generation"), At: rapid.Int64Range(0, 1<<52).Draw(t, "at")}
	if rapid.Bool().Draw(t, "but") {
		v.Except = genSession(t, "except")
	}
	if rapid.Bool().Draw(t, "plain") {
		return v
	}
	v.SoftUpTo = rapid.Uint64().Draw(t, "soft up to")
	n := rapid.IntRange(0, MaxEnds).Draw(t, "ends")
	for i := range n {
		g := GenerationEnd{Generation: uint64(i)*3 + 1 + rapid.Uint64Range(0, 2).Draw(t, "above"), End: genEnd(t)}
		g.At = rapid.Int64Range(0, 1<<52).Draw(t, "end at")
		v.Ends = append(v.Ends, g)
	}
	return v
}

func TestRevocationRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := genRevocation(t)
		b, _ := want.MarshalBinary()
		var got GenerationRecord
		if err := got.UnmarshalBinary(b); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
		for n := 1; n < len(b); n++ {
			if err := new(GenerationRecord).UnmarshalBinary(b[:n]); err == nil {
				t.Fatalf("the first %d bytes of %x were read as a revocation", n, b)
			}
		}
	})
	var v GenerationRecord
	if err := v.UnmarshalBinary(nil); err != nil || !reflect.DeepEqual(v, GenerationRecord{}) {
		t.Errorf("no record: %+v, %v", v, err)
	}
}

// TestRevocationKeepsItsSize tests that the default revocation has the stored form of
// earlier versions, which can read it.
func TestRevocationKeepsItsSize(t *testing.T) {
	t.Parallel()
	v := GenerationRecord{}
	for i, end := range []revocation.End{{}, {Cause: revocation.CauseRevoked}, {Cause: revocation.CauseLogout}} {
		v = v.Raise(1_790_000_000_000+int64(i), caveat.SessionID{}, revocation.End{Cause: cmp.Or(end.Cause, revocation.CauseRevoked)})
	}
	b, _ := v.MarshalBinary()
	if b[0] != kindRevocation || len(b) != 8 {
		t.Errorf("stored as %x", b)
	}
}

func TestDeviceRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var want DeviceRecord
		if rapid.Bool().Draw(t, "current") {
			want.Current, want.Since = genSession(t, "session"), rapid.Int64Range(0, 1<<42).Draw(t, "since")*1000
		}
		if rapid.Bool().Draw(t, "revoked") {
			want.Revoked = rapid.Int64Range(1, 1<<52).Draw(t, "at")
			want.End = genEnd(t)
			want.End.At = want.Revoked
			if rapid.Bool().Draw(t, "but") {
				want.Except = genSession(t, "except")
			}
		}
		b, _ := want.MarshalBinary()
		var got DeviceRecord
		if err := got.UnmarshalBinary(b); err != nil || got != want {
			t.Fatalf("got %+v, %v; want %+v", got, err, want)
		}
		for n := 1; n < len(b); n++ {
			if err := new(DeviceRecord).UnmarshalBinary(b[:n]); err == nil {
				t.Fatalf("the first %d bytes of %x were read as a device", n, b)
			}
		}
	})
	var v DeviceRecord
	if err := v.UnmarshalBinary(nil); err != nil || v != (DeviceRecord{}) {
		t.Errorf("no record: %+v, %v", v, err)
	}
	if revocation.TagOf("") != (revocation.DeviceTag{}) || revocation.TagOf("A") == revocation.TagOf("a") || revocation.TagOf("A") == (revocation.DeviceTag{}) {
		t.Error("tags do not distinguish devices")
	}
}

// TestOldForms reads the stored forms of earlier versions. They are literal bytes, so
// that no change of the code can change both sides.
func TestOldForms(t *testing.T) {
	t.Parallel()
	read := func(t *testing.T, text string, v encoding.BinaryUnmarshaler) {
		t.Helper()
		b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if err == nil {
			err = v.UnmarshalBinary(b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Run("tombstone", func(t *testing.T) {
		var r Record
		read(t, "20 80f7c4d506 07", &r)
		want := Record{End: revocation.End{Soft: true, Cause: revocation.CauseRevoked, At: 1_790_000_000_000}, Confirmed: Confirmed{Epoch: 7}}
		if !reflect.DeepEqual(r, want) {
			t.Errorf("read %+v", r)
		}
		if !r.Over() || ReasonOf(r.End) != ReasonSessionEnded {
			t.Errorf("ended %v, %q", r.Over(), ReasonOf(r.End))
		}
	})
	t.Run("live", func(t *testing.T) {
		var r Record
		// rotate, successor, created, device, first party, epoch 2, nonce, confirmed, successor, last used
		read(t, "12 04 6ab13b80 0144 04cb007107 0158 02 f10203040506 e807 a10203040506 f403 01020304 00", &r)
		if r.Confirmed.Epoch != 2 || r.Confirmed.Nonce != (Nonce{0xf1, 2, 3, 4, 5, 6}) || r.Successor == nil || r.Successor.Reported != 0 || r.Device != "D" {
			t.Errorf("read %+v", r)
		}
	})
	t.Run("revocation", func(t *testing.T) {
		var v GenerationRecord
		read(t, "31 02 80a0e7a98c34", &v)
		if v.Generation != 2 || v.At == 0 || v.EndAbove(0).Soft || v.EndAbove(1).Soft || ReasonOf(v.EndAbove(1)) != ReasonSessionEnded {
			t.Errorf("read %+v", v)
		}
	})
	t.Run("revocation except one", func(t *testing.T) {
		var v GenerationRecord
		read(t, "32 02 80a0e7a98c34 0102030405060708090a0b0c0d0e0f10", &v)
		if v.Except != (caveat.SessionID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}) {
			t.Errorf("read %+v", v)
		}
	})
}

func TestInvalidRecordIsNotEncoded(t *testing.T) {
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
	b, _ = r.Tombstone(revocation.End{Soft: true, Cause: revocation.CausePolicy, Code: "office_hours", At: r.LastUsed}).MarshalBinary()
	f.Add(b)
	f.Add([]byte{kindEndedOld, 0x80, 0xb3, 0xc4, 0xd5, 0x06, 7})
	f.Fuzz(func(t *testing.T, in []byte) {
		var r Record
		if err := r.UnmarshalBinary(in); err != nil {
			if !reflect.DeepEqual(r, Record{}) {
				t.Fatalf("%+v after an error", r)
			}
			return
		}
		out, err := r.MarshalBinary()
		if err == nil && in[0] == kindEndedOld { // encoded in the new form
			var again Record
			if err := again.UnmarshalBinary(out); err != nil || !reflect.DeepEqual(r, again) {
				t.Fatalf("%x: %+v, encoded and read again: %+v, %v", in, r, again, err)
			}
			return
		}
		if err != nil || !bytes.Equal(in, out) {
			t.Fatalf("%x parses, but encodes to %x, %v", in, out, err)
		}
	})
}

func FuzzRevocation(f *testing.F) {
	for _, but := range []caveat.SessionID{{}, {1, 2, 3}} {
		v := GenerationRecord{Generation: 300, At: 1_790_000_000_000, Except: but}
		b, _ := v.MarshalBinary()
		f.Add(b)
		b, _ = v.Raise(v.At+1, but, revocation.End{Soft: true, Cause: revocation.CausePolicy, Code: "why"}).MarshalBinary()
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var v GenerationRecord
		if err := v.UnmarshalBinary(in); err != nil || len(in) == 0 {
			if !reflect.DeepEqual(v, GenerationRecord{}) {
				t.Fatalf("%+v after an error", v)
			}
			return
		}
		if out, _ := v.MarshalBinary(); !bytes.Equal(in, out) {
			t.Fatalf("%x parses, but encodes to %x", in, out)
		}
	})
}

func FuzzDevice(f *testing.F) {
	for _, v := range []DeviceRecord{
		{Current: caveat.SessionID{1}, Since: 1_790_000_000_000},
		{Current: caveat.SessionID{1}, Since: 1_790_000_000_000, Revoked: 1_790_000_000_000, End: revocation.End{Soft: true, Cause: revocation.CauseRevoked}},
		{Revoked: 1_790_000_000_000, End: revocation.End{Cause: revocation.CauseRevoked}, Except: caveat.SessionID{2}},
	} {
		b, _ := v.MarshalBinary()
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var v DeviceRecord
		if err := v.UnmarshalBinary(in); err != nil || len(in) == 0 {
			if v != (DeviceRecord{}) {
				t.Fatalf("%+v after an error", v)
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
