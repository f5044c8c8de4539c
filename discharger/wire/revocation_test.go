package wire

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
)

var (
	ended  = Revocation{Session: caveat.SessionID{1}, At: utcMilli(1000), Until: utcMilli(2000), Reason: RevokedLogout}
	users  = Revocation{User: "@a:x", Before: utcMilli(1001), At: utcMilli(1000), Until: utcMilli(2000), Reason: RevokedOrder}
	butOne = Revocation{User: "@\"\n\u2028:x", Except: caveat.SessionID{2}, Before: utcMilli(1), At: utcMilli(1), Until: utcMilli(2), Reason: "later"}
	all    = Revocation{All: true, Before: utcMilli(1001), At: utcMilli(1000), Until: utcMilli(2000), Reason: RevokedPolicy}

	replaced = Revocation{Session: caveat.SessionID{1}, User: "u", Device: "d", Soft: true, At: utcMilli(1000), Until: utcMilli(2000), Reason: RevokedReplaced}
	noName   = Revocation{Session: caveat.SessionID{1}, Device: "d", At: utcMilli(1000), Until: utcMilli(2000), Reason: RevokedExpired}
	device   = Revocation{User: "u", Device: "d", Except: caveat.SessionID{2}, Before: utcMilli(1001), At: utcMilli(1000), Until: utcMilli(2000), Soft: true, Reason: RevokedOrder}
	devices  = Revocation{User: "u", Devices: true, Before: utcMilli(1001), At: utcMilli(1000), Until: utcMilli(2000), Reason: RevokedOrder}

	revocations = []Revocation{ended, users, butOne, all, replaced, noName, device, devices}
)

func TestRevocation(t *testing.T) {
	t.Parallel()
	for _, want := range revocations {
		b, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Revocation
		if err := json.Unmarshal(b, &got); err != nil || got != want {
			t.Errorf("%s is read as %+v, %v", b, got, err)
		}
	}
	id := caveat.SessionID{1}.String()
	for _, bad := range []string{
		``, `{}`, `[]`, `null`, `{"v":1}`, `{"v":2,"session":"` + id + `","at":1,"until":2,"reason":"x"}`,
		`{"v":1,"at":1,"until":2,"reason":"x"}`,
		`{"v":1,"session":"` + id + `","all":true,"at":1,"until":2,"reason":"x"}`,
		`{"v":1,"device":"d","before":1,"at":1,"until":2,"reason":"x"}`,
		`{"v":1,"all":true,"device":"d","before":1,"at":1,"until":2,"reason":"x"}`,
		`{"v":1,"all":true,"devices":true,"before":1,"at":1,"until":2,"reason":"x"}`,
		`{"v":1,"user":"u","device":"d","devices":true,"before":1,"at":1,"until":2,"reason":"x"}`,
		`{"v":1,"user":"u","device":"d","at":1,"until":2,"reason":"x"}`,
		`{"v":1,"user":"u","device":"` + strings.Repeat("d", 2049) + `","before":1,"at":1,"until":2,"reason":"x"}`,
		`{"v":1,"session":"` + id + `","kind":5,"at":1,"until":2,"reason":"x"}`,
		`{"v":1,"user":"u","all":true,"before":1,"at":1,"until":2,"reason":"x"}`,
		`{"v":1,"session":"` + id + `","before":1,"at":1,"until":2,"reason":"x"}`,
		`{"v":1,"session":"` + id + `","at":1,"until":2,"reason":"x","at":1}`,
		`{"v":1,"session":"` + id + `","at":1,"until":2,"reason":""}`,
		`{"v":1,"session":"` + id + `","at":1,"until":2}`,
		`{"v":1,"session":"` + id + `","at":1,"reason":"x"}`,
		`{"v":1,"session":"` + id + `","at":-1,"until":2,"reason":"x"}`,
		`{"v":1,"session":"` + id + `","at":1,"until":1e99,"reason":"x"}`,
		`{"v":1,"session":"` + id + `","at":1,"until":95617584000000,"reason":"x"}`,
		`{"v":1,"session":"` + id + `","except":"` + id + `","at":1,"until":2,"reason":"x"}`,
		`{"v":1,"session":"AAAAAAAAAAAAAAAAAAAAAA","at":1,"until":2,"reason":"x"}`,
		`{"v":1,"session":"` + id[1:] + `","at":1,"until":2,"reason":"x"}`,
		`{"v":1,"user":"","before":1,"at":1,"until":2,"reason":"x"}`,
		`{"v":1,"user":"u","at":1,"until":2,"reason":"x"}`,
		`{"v":1,"user":"` + strings.Repeat("u", 256) + `","before":1,"at":1,"until":2,"reason":"x"}`,
		`{"v":1,"all":true,"except":"` + id + `","before":1,"at":1,"until":2,"reason":"x"}`,
		`{"v":1,"all":false,"before":1,"at":1,"until":2,"reason":"x"}`,
		`{"v":1,"session":"` + id + `","at":1,"until":2,"reason":"x"} {}`,
	} {
		got := ended
		if err := got.UnmarshalJSON([]byte(bad)); err == nil || got != (Revocation{}) {
			t.Errorf("%s is read as %+v, %v", bad, got, err)
		}
	}
	for name, c := range map[string]struct {
		text string
		want Revocation
	}{
		"no kind":         {`{"v":1,"session":"` + id + `","at":1000,"until":2000,"reason":"logout"}`, ended},
		"unknown members": {`{"v":1,"session":"` + id + `","at":1000,"until":2000,"reason":"logout","new":1,"kind":"hard","x":{}}`, ended},
		"device, no session": {`{"v":1,"user":"u","device":"d","before":5,"at":1,"until":2,"reason":"x"}`,
			Revocation{User: "u", Device: "d", Before: utcMilli(5), At: utcMilli(1), Until: utcMilli(2), Reason: "x"}},
		"later kind": {`{"v":1,"session":"` + id + `","at":1,"until":2,"reason":"x","kind":"later"}`,
			Revocation{Session: caveat.SessionID{1}, Soft: true, At: utcMilli(1), Until: utcMilli(2), Reason: "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got Revocation
			if err := got.UnmarshalJSON([]byte(c.text)); err != nil || got != c.want {
				t.Errorf("read as %+v, %v", got, err)
			}
		})
	}
	for _, bad := range []Revocation{{}, {User: "u", All: true}, {Session: caveat.SessionID{1}}} {
		if b, err := json.Marshal(bad); err == nil {
			t.Errorf("%+v is written as %s", bad, b)
		}
	}
}
