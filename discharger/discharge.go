package discharger

import (
	"encoding/base64"
	"encoding/hex"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// Discharge is a minted discharge macaroon. Its first caveat is always
//
//	time-before <RFC 3339>
//
// in mode rotate followed by
//
//	declared epoch <n>
//
// and then come those a policy added. The first two carry the prefix of the
// namespace "std" that the caveat was sealed with, as stock bakery checkers
// expect; a policy's are written as the policy wrote them.
type Discharge struct {
	Version   caveat.Version // of the caveat that it discharges
	ID        []byte         // as the client asked for it
	Caveats   []string
	Signature [rawmacaroon.Size]byte

	stdPrefix string
}

// mint makes a discharge of an opened caveat.
func mint(o *caveat.Opened, id []byte, caveats []string) *Discharge {
	d := &Discharge{Version: o.Version, ID: id, Caveats: caveats, stdPrefix: o.StdPrefix}
	sig := rawmacaroon.Key(o.RootKey)
	sig = rawmacaroon.Hash(&sig, id)
	for _, c := range caveats {
		sig = rawmacaroon.Hash(&sig, []byte(c))
	}
	d.Signature = sig
	return d
}

// standard writes a condition of the namespace "std" as the caveat's own
// namespace spells it.
func standard(prefix, condition string) string {
	if prefix == "" {
		return condition
	}
	return prefix + ":" + condition
}

// AppendJSON appends the macaroon as the bakery protocol has it for the
// version of the caveat: for V1 and V2 the macaroon formats 1 and 2, for V3
// format 2 in an envelope that names the namespace.
func (d *Discharge) AppendJSON(b []byte) ([]byte, error) {
	switch d.Version {
	case caveat.V1:
		return d.appendV1(b)
	case caveat.V2:
		return d.appendV2(b)
	}
	b, err := d.appendV2(append(b, `{"m":`...))
	if err != nil {
		return nil, err
	}
	b = append(b, `,"v":3,"ns":`...)
	b, err = jsontext.AppendQuote(b, "std:"+d.stdPrefix)
	return append(b, '}'), err
}

func (d *Discharge) appendV1(b []byte) ([]byte, error) {
	var err error
	b = append(b, `{"caveats":[`...)
	for i, c := range d.Caveats {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = jsontext.AppendQuote(append(b, `{"cid":`...), c); err != nil {
			return nil, err
		}
		b = append(b, '}')
	}
	b, err = jsontext.AppendQuote(append(b, `],"location":"","identifier":`...), d.ID)
	b = append(b, `,"signature":"`...)
	b = hex.AppendEncode(b, d.Signature[:])
	return append(b, `"}`...), err
}

func (d *Discharge) appendV2(b []byte) ([]byte, error) {
	var err error
	b = append(b, `{"c":[`...)
	for i, c := range d.Caveats {
		if i > 0 {
			b = append(b, ',')
		}
		if b, err = jsontext.AppendQuote(append(b, `{"i":`...), c); err != nil {
			return nil, err
		}
		b = append(b, '}')
	}
	b = base64.RawURLEncoding.AppendEncode(append(b, `],"i64":"`...), d.ID)
	b = base64.RawURLEncoding.AppendEncode(append(b, `","s64":"`...), d.Signature[:])
	return append(b, `"}`...), nil
}
