package wire

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

func TestRevokeEntry(t *testing.T) {
	t.Parallel()
	id, other := caveat.SessionID{1}, caveat.SessionID{2}
	for text, want := range map[string]RevokeEntry{
		`{"user":"u"}`: {User: "u"},
		`{"user":"u","session":"` + id.String() + `","kind":"soft","epoch":7}`: {User: "u", Session: id, RevokeOptions: RevokeOptions{Soft: true, Epoch: 7}},
		`{"user":"u","device":"d","age":1500,"except":"` + other.String() + `"}`: {
			User: "u", Device: "d", RevokeOptions: RevokeOptions{Age: 1500 * time.Millisecond, Except: other},
		},
		`{"user":"u","except_device":"d","devices":true}`: {User: "u", RevokeOptions: RevokeOptions{ExceptDevice: "d", Devices: true}},
	} {
		t.Run(text, func(t *testing.T) {
			var got RevokeEntry
			if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
				t.Errorf("read as %+v, %v", got, err)
			}
			b, err := json.Marshal(want)
			var again RevokeEntry
			if err == nil {
				err = again.UnmarshalJSON(b)
			}
			if err != nil || again != want {
				t.Errorf("written as %s, read as %+v, %v", b, again, err)
			}
		})
	}
	hard := RevokeEntry{}
	if err := hard.UnmarshalJSON([]byte(`{"user":"u","kind":"hard","age":0,"devices":false}`)); err != nil || hard != (RevokeEntry{User: "u"}) {
		t.Errorf("the defaults are read as %+v, %v", hard, err)
	}
	// Errors of entries are tested over HTTP, in package server.
}

// FuzzRevokeEntry: every decoded entry can be encoded, and an entry with a
// device or a session is never read as one about the whole user.
func FuzzRevokeEntry(f *testing.F) {
	for _, s := range []string{
		`{"user":"u"}`, `{"user":"u","device":""}`, `{"user":"u","device":null}`, `{"user":"u","session":"AAAAAAAAAAAAAAAAAAAAAA"}`,
		`{"user":"u","except_device":"d","age":5,"kind":"soft","devices":true}`, `{"user":"u","epoch":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var e RevokeEntry
		if err := e.UnmarshalJSON(in); err != nil {
			if e != (RevokeEntry{}) {
				t.Fatalf("%+v beside an error", e)
			}
			return
		}
		var members map[string]any
		if err := json.Unmarshal(in, &members); err != nil {
			t.Fatal(err)
		}
		if members["device"] != nil && e.Device == "" || members["session"] != nil && e.Session == (caveat.SessionID{}) {
			t.Fatalf("%s is read as %+v", in, e)
		}
		b, err := e.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var again RevokeEntry
		if err := again.UnmarshalJSON(b); err != nil || again != e {
			t.Fatalf("%+v is read again as %+v, %v", e, again, err)
		}
	})
}

func TestRevokeResult(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]RevokeResult{
		`{"ended":2,"known":true,"marked":true}`:         {Revoked: Revoked{Ended: 2, Known: true, Marked: true}},
		`{"error":{"Code":"unavailable","Message":"m"}}`: {Error: &ErrorResponse{Code: CodeUnavailable, Message: "m"}},
	} {
		b, err := json.Marshal(want)
		if err != nil || string(b) != text {
			t.Errorf("written as %s, %v, want %s", b, err, text)
		}
		var got RevokeResult
		if err := json.Unmarshal([]byte(text), &got); err != nil || got.Revoked != want.Revoked || (got.Error == nil) != (want.Error == nil) {
			t.Errorf("%s is read as %+v, %v", text, got, err)
		}
	}
}
