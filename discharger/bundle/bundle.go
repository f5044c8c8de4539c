// Package bundle encodes and decodes bundles: an access macaroon and the discharges
// bound to it, as the text that a client presents to its homeserver.
//
// The text is base64, URL alphabet, unpadded, of one of two forms:
//
//	standard   macaroons in the V2 binary format, one after the other, the
//	           access macaroon first; every macaroon library reads it
//
//	compact    0x01, then the same, with the identifiers of the discharges empty.
//	           An identifier is the id of the third-party caveat that the discharge
//	           satisfies, which is in the access macaroon and is its largest part.
//	           Discharges are in the order of the third-party caveats, one for each
//
// A macaroon in the V2 binary format is:
//
//	02                                        version
//	[01 length location] 02 length identifier 00
//	{[01 length location] 02 length caveat-id [04 length verification-id] 00}
//	00
//	06 20 signature                           32 bytes
//
// Lengths are uvarints. Decoding is strict, so that a bundle has one text in each form:
// lengths in the fewest bytes, no empty location or verification id, no location of a
// first-party caveat, nothing after the end. It verifies nothing; package homeserver does.
package bundle

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// MaxLength is the greatest length of a bundle, in characters.
const MaxLength = 16 << 10

// Limits of the content of a bundle, which bound the cost of a hostile one.
const (
	MaxMacaroons = 16
	MaxCaveats   = rawmacaroon.MaxCaveats // of all macaroons together
)

// compactMark is the first byte of the compact form. The standard form begins with the
// version of its first macaroon, which is 2.
const compactMark = 0x01

// errBase64 does not repeat the text, which is secret.
var errBase64 = errors.New("malformed base64")

// ErrMalformed is returned for a text that is not a bundle.
var ErrMalformed = errors.New("malformed bundle")

// Bundle is a decoded bundle, unverified.
type Bundle struct {
	Access     rawmacaroon.Macaroon
	Discharges []rawmacaroon.Macaroon
	Compact    bool // the form of the text

	views   [2]rawmacaroon.Macaroon
	caveats [8]rawmacaroon.Caveat
}

// Encode encodes an access macaroon and the discharges bound to it, in that order. The
// form is compact if the discharges are those of the third-party caveats of the access
// macaroon, in their order, and standard otherwise. Macaroons of version 1 become
// version 2, with the same signatures.
func Encode(macaroons macaroon.Slice) (string, error) {
	return encodeBundle(macaroons, inOrder(macaroons))
}

// EncodeStandard is [Encode] for readers without the compact form.
func EncodeStandard(macaroons macaroon.Slice) (string, error) {
	return encodeBundle(macaroons, false)
}

func encodeBundle(macaroons macaroon.Slice, compact bool) (string, error) {
	if len(macaroons) == 0 {
		return "", errors.New("encode bundle: no macaroon")
	}
	var data []byte
	if compact {
		data = append(data, compactMark)
	}
	for i, m := range macaroons {
		if m == nil {
			return "", fmt.Errorf("encode bundle: macaroon %d is nil", i)
		}
		v := viewOf(m)
		if compact && i > 0 {
			v.ID = nil
		}
		data = v.Append(data)
	}
	text := strictURL.EncodeToString(data)
	// A bundle above the limits must not be handed out.
	if _, err := Parse(text); err != nil {
		return "", fmt.Errorf("encode bundle: %w", err)
	}
	return text, nil
}

// inOrder reports whether the discharges are those of the third-party caveats of the
// first macaroon, in order.
func inOrder(macaroons macaroon.Slice) bool {
	if len(macaroons) < 2 || macaroons[0] == nil {
		return false
	}
	discharges := macaroons[1:]
	for _, c := range macaroons[0].Caveats() {
		if len(c.VerificationId) == 0 {
			continue
		}
		if len(discharges) == 0 || discharges[0] == nil || !bytes.Equal(discharges[0].Id(), c.Id) {
			return false
		}
		discharges = discharges[1:]
	}
	return len(discharges) == 0
}

func viewOf(m *macaroon.Macaroon) rawmacaroon.Macaroon {
	v := rawmacaroon.Macaroon{Location: []byte(m.Location()), ID: m.Id(), Signature: m.Signature()}
	for _, c := range m.Caveats() {
		v.Caveats = append(v.Caveats, rawmacaroon.Caveat{Location: []byte(c.Location), ID: c.Id, VerificationID: c.VerificationId})
	}
	return v
}

// Decode decodes a bundle of either form: the access macaroon, then the discharges.
func Decode(text string) (macaroon.Slice, error) {
	b, err := Parse(text)
	if err != nil {
		return nil, err
	}
	return b.Macaroons()
}

// Macaroons returns copies for the macaroon library: the access macaroon, then the
// discharges.
func (b *Bundle) Macaroons() (macaroon.Slice, error) {
	data := b.Access.Append(nil)
	for i := range b.Discharges {
		data = b.Discharges[i].Append(data)
	}
	var s macaroon.Slice
	if err := s.UnmarshalBinary(data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return s, nil
}

// Parse decodes a bundle of either form without copying its parts. Every error matches
// [ErrMalformed].
func Parse(text string) (*Bundle, error) {
	b := new(Bundle)
	if err := b.parse(text); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return b, nil
}

var strictURL = base64.RawURLEncoding.Strict()

func (b *Bundle) parse(text string) error {
	if len(text) > MaxLength {
		return fmt.Errorf("%d characters, more than %d", len(text), MaxLength)
	}
	if strings.IndexByte(text, '\n') >= 0 || strings.IndexByte(text, '\r') >= 0 {
		return errBase64 // encoding/base64 skips them
	}
	data, err := strictURL.DecodeString(text)
	if err != nil {
		return errBase64
	}
	if len(data) > 0 && data[0] == compactMark {
		b.Compact = true
		data = data[1:]
	}
	views, caveats := b.views[:0], b.caveats[:0]
	for first := true; first || len(data) > 0; first = false {
		if len(views) == MaxMacaroons {
			return errors.New("too many macaroons")
		}
		start := len(caveats)
		var v rawmacaroon.Macaroon
		if data, caveats, err = rawmacaroon.Parse(data, &v, caveats); err != nil {
			return err
		}
		v.Caveats = caveats[start:len(caveats):len(caveats)]
		views = append(views, v)
	}
	b.Access, b.Discharges = views[0], views[1:]
	if b.Compact {
		return b.restoreIDs()
	}
	return nil
}

// restoreIDs sets the identifiers of the discharges of the compact form.
func (b *Bundle) restoreIDs() error {
	next := 0
	for i := range b.Access.Caveats {
		c := &b.Access.Caveats[i]
		switch {
		case !c.ThirdParty():
			continue
		case next == len(b.Discharges):
			return errors.New("compact, but a discharge is missing")
		case len(b.Discharges[next].ID) > 0:
			return errors.New("compact, but a discharge has an identifier")
		}
		b.Discharges[next].ID = c.ID
		next++
	}
	if next == 0 || next != len(b.Discharges) {
		return errors.New("compact, but not one discharge for each third-party caveat")
	}
	return nil
}
