package revocation

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
)

var (
	ended  = Event{Session: caveat.SessionID{1}, At: utc(1000), Until: utc(2000), Reason: CauseLogout}
	users  = Event{User: "@a:x", Before: utc(1001), At: utc(1000), Until: utc(2000), Reason: CauseRevoked}
	butOne = Event{User: "@\"\n\u2028:x", Except: caveat.SessionID{2}, Before: utc(1), At: utc(1), Until: utc(2), Reason: "later"}
	all    = Event{All: true, Before: utc(1001), At: utc(1000), Until: utc(2000), Reason: CausePolicy}

	replaced = Event{Session: caveat.SessionID{1}, User: "u", Device: "d", Soft: true, At: utc(1000), Until: utc(2000), Reason: CauseReplaced}
	noName   = Event{Session: caveat.SessionID{1}, Device: "d", At: utc(1000), Until: utc(2000), Reason: CauseExpired}
	device   = Event{User: "u", Device: "d", Except: caveat.SessionID{2}, Before: utc(1001), At: utc(1000), Until: utc(2000), Soft: true, Reason: CauseRevoked}
	devices  = Event{User: "u", Devices: true, Before: utc(1001), At: utc(1000), Until: utc(2000), Reason: CauseRevoked}

	revocations = []Event{ended, users, butOne, all, replaced, noName, device, devices}
)

func TestEvent(t *testing.T) {
	t.Parallel()
	for _, want := range revocations {
		b, err := json.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		var got Event
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
		if err := got.UnmarshalJSON([]byte(bad)); err == nil || got != (Event{}) {
			t.Errorf("%s is read as %+v, %v", bad, got, err)
		}
	}
	for name, c := range map[string]struct {
		text string
		want Event
	}{
		"no kind":         {`{"v":1,"session":"` + id + `","at":1000,"until":2000,"reason":"logout"}`, ended},
		"unknown members": {`{"v":1,"session":"` + id + `","at":1000,"until":2000,"reason":"logout","new":1,"kind":"hard","x":{}}`, ended},
		"device, no session": {`{"v":1,"user":"u","device":"d","before":5,"at":1,"until":2,"reason":"x"}`,
			Event{User: "u", Device: "d", Before: utc(5), At: utc(1), Until: utc(2), Reason: "x"}},
		"later kind": {`{"v":1,"session":"` + id + `","at":1,"until":2,"reason":"x","kind":"later"}`,
			Event{Session: caveat.SessionID{1}, Soft: true, At: utc(1), Until: utc(2), Reason: "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			var got Event
			if err := got.UnmarshalJSON([]byte(c.text)); err != nil || got != c.want {
				t.Errorf("read as %+v, %v", got, err)
			}
		})
	}
	for _, bad := range []Event{{}, {User: "u", All: true}, {Session: caveat.SessionID{1}}} {
		if b, err := json.Marshal(bad); err == nil {
			t.Errorf("%+v is written as %s", bad, b)
		}
	}
}
