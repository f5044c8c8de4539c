package wire

import (
	"encoding/json"
	"testing"
)

func TestAppendIsWhatEncodingJSONWrites(t *testing.T) {
	t.Parallel()
	for _, r := range []DischargeResponse{
		{Macaroon: json.RawMessage(`{"i64":"AA"}`), ExpiresIn: 300000},
		{Macaroon: json.RawMessage(`{"i64":"AA"}`), RefreshToken: "AgINAQ_-", ExpiresIn: 1},
		{Macaroon: json.RawMessage(`{}`), RefreshToken: "a\"b\\c\n", ExpiresIn: 0},
	} {
		want, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Append(nil); string(got) != string(want) {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}
