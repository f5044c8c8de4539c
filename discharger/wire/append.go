package wire

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// Append appends the JSON of the response to b. It is what encoding/json
// would write, without looking through the macaroon again; the service does
// this for every discharge.
func (r DischargeResponse) Append(b []byte) []byte {
	b = append(append(b, `{"Macaroon":`...), r.Macaroon...)
	if r.RefreshToken != "" {
		b = append(b, `,"RefreshToken":`...)
		b, _ = jsontext.AppendQuote(b, r.RefreshToken) // fails on bad UTF-8 only, and then writes U+FFFD
	}
	b = append(b, `,"ExpiresIn":`...)
	return append(strconv.AppendInt(b, r.ExpiresIn, 10), '}')
}
