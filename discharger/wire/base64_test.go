package wire

import (
	"bytes"
	"encoding/base64"
	"testing"
)

func TestDecodeBase64(t *testing.T) {
	t.Parallel()
	data := []byte{0xfb, 0xff, 0xfe, 0x00}
	for _, enc := range []*base64.Encoding{base64.RawURLEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.StdEncoding} {
		got, err := DecodeBase64(enc.EncodeToString(data))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("DecodeBase64(%q) = %x, %v", enc.EncodeToString(data), got, err)
		}
	}
	if got, err := DecodeBase64(""); err != nil || len(got) != 0 {
		t.Errorf("the empty text gives %x, %v", got, err)
	}
	for _, bad := range []string{"+-__", "AA=", "AA===", "A", "AB", "AB==", "A A=", "AAAA\n", "\r", "AA\nAA", "=", "AAAA=", "é"} {
		if got, err := DecodeBase64(bad); err == nil {
			t.Errorf("DecodeBase64(%q) = %x, want an error", bad, got)
		}
	}
}

func FuzzDecodeBase64(f *testing.F) {
	for _, s := range []string{"", "AA", "AA==", "-_-_", "+/+/", "AAA=", "A\nA"} {
		f.Add(s)
	}
	encodings := []*base64.Encoding{base64.RawURLEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.StdEncoding}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := DecodeBase64(s)
		if err != nil {
			if got != nil {
				t.Fatal("data beside an error")
			}
			return
		}
		for _, enc := range encodings {
			if enc.EncodeToString(got) == s {
				return
			}
		}
		t.Fatalf("%q decodes to %x, which no encoding writes that way", s, got)
	})
}
