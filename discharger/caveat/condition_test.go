package caveat

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func testSession(tb testing.TB) SessionID {
	tb.Helper()
	id, err := ParseSessionID("AAECAwQFBgcICQoLDA0ODw")
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

func fullCondition(tb testing.TB) Condition {
	tb.Helper()
	return Condition{
		Session: testSession(tb),
		User:    "@zoë:example.org",
		Device:  `A"<\>&`,
		Minted:  1764000000000,
		Mode:    ModeHeld,
		Policy:  "staff-2.b_x",
		MaxTTL:  90 * time.Second,
		Expires: 1764009000000,
		Labels:  map[string]string{"role": "admin", "a": "", "client": "tab\tand 😀"},
	}
}

func TestConditionEncode(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		condition Condition
		want      string
	}{
		{
			Condition{Session: testSession(t), User: "@alice:example.org", Device: "", Mode: ModeOpen},
			`session {"id":"AAECAwQFBgcICQoLDA0ODw","user":"@alice:example.org","device":"","minted":0,"mode":"open"}`,
		},
		{
			fullCondition(t),
			`session {"id":"AAECAwQFBgcICQoLDA0ODw","user":"@zoë:example.org","device":"A\"<\\>&","minted":1764000000000,` +
				`"mode":"held","policy":"staff-2.b_x","max_ttl":90,"expires":1764009000000,` +
				`"labels":{"a":"","client":"tab\tand 😀","role":"admin"}}`,
		},
	} {
		for range 20 { // labels come out of a map
			got, err := test.condition.Encode()
			if err != nil || got != test.want {
				t.Errorf("got %s, %v\nwant %s", got, err, test.want)
			}
		}
		back, err := ParseCondition([]byte(test.want))
		if err != nil || !reflect.DeepEqual(back, test.condition) {
			t.Errorf("parsed %+v, %v\nwant %+v", back, err, test.condition)
		}
	}
}

// The largest of everything that has a limit, and one more than that.
func TestConditionLimits(t *testing.T) {
	t.Parallel()
	labels := func(n, key, value int) map[string]string {
		m := make(map[string]string)
		for i := range n {
			name := strconv.Itoa(i)
			m[name+strings.Repeat("k", max(key-len(name), 0))] = strings.Repeat("v", value)
		}
		return m
	}
	for name, test := range map[string]struct {
		good func(*Condition)
		bad  func(*Condition)
		says string
	}{
		"user":        {func(c *Condition) { c.User = strings.Repeat("é", 127) + "x" }, func(c *Condition) { c.User = strings.Repeat("é", 128) }, "user"},
		"device":      {func(c *Condition) { c.Device = strings.Repeat("d", 512) }, func(c *Condition) { c.Device = strings.Repeat("d", 513) }, "device"},
		"wide device": {func(c *Condition) { c.Device = strings.Repeat("𝕕", 512) }, func(c *Condition) { c.Device = strings.Repeat("𝕕", 513) }, "device"},
		"odd device":  {func(c *Condition) { c.Device = strings.Repeat("\x00", 512) }, func(c *Condition) { c.Device = "\xff" }, "device"},
		"policy":      {func(c *Condition) { c.Policy = strings.Repeat("p", 64) }, func(c *Condition) { c.Policy = strings.Repeat("p", 65) }, "policy"},
		"minted":      {func(c *Condition) { c.Minted = 1 << 53 }, func(c *Condition) { c.Minted = 1<<53 + 1 }, "minted"},
		"expires":     {func(c *Condition) { c.Expires = 1 << 53 }, func(c *Condition) { c.Expires = 1<<53 + 1 }, "expires"},
		"max_ttl":     {func(c *Condition) { c.MaxTTL = math.MaxInt64 / time.Second * time.Second }, func(c *Condition) { c.MaxTTL = math.MaxInt64 }, "max_ttl"},
		"least ttl":   {func(c *Condition) { c.MaxTTL = time.Second }, func(c *Condition) { c.MaxTTL = time.Millisecond }, "max_ttl"},
		"labels":      {func(c *Condition) { c.Labels = labels(16, 1, 1) }, func(c *Condition) { c.Labels = labels(17, 1, 1) }, "labels"},
		"label key":   {func(c *Condition) { c.Labels = labels(1, 64, 0) }, func(c *Condition) { c.Labels = labels(1, 65, 0) }, "labels"},
		"label value": {func(c *Condition) { c.Labels = labels(1, 1, 256) }, func(c *Condition) { c.Labels = labels(1, 1, 257) }, "labels"},
		"whole":       {func(c *Condition) { c.Device, c.Labels = strings.Repeat("\x00", 512), labels(15, 64, 256) }, func(c *Condition) { c.Labels = labels(16, 64, 256) }, "8192"},
	} {
		t.Run(name, func(t *testing.T) {
			c := Condition{Session: testSession(t), User: "u", Mode: ModeOpen}
			test.good(&c)
			text, err := c.Encode()
			if err != nil {
				t.Error(err)
			}
			if back, err := ParseCondition([]byte(text)); err != nil || !reflect.DeepEqual(back, c) {
				t.Errorf("does not read back: %v", err)
			}
			test.bad(&c)
			if text, err := c.Encode(); err == nil || text != "" || !strings.Contains(err.Error(), test.says) {
				t.Errorf("over the limit: got %q, %v", text, err)
			}
		})
	}
}

func TestConditionEncodeRefuses(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Condition){
		"id":              func(c *Condition) { c.Session = SessionID{} },
		"user":            func(c *Condition) { c.User = "" },
		"user is not":     func(c *Condition) { c.User = "\xff" },
		"user has":        func(c *Condition) { c.User = "a\x00" },
		"device has":      func(c *Condition) { c.Device = strings.Repeat("é", 513) },
		"device is not":   func(c *Condition) { c.Device = "\xc3" },
		"minted":          func(c *Condition) { c.Minted = -1 },
		"mode":            func(c *Condition) { c.Mode = 0 },
		"mode is":         func(c *Condition) { c.Mode = 4 },
		"policy":          func(c *Condition) { c.Policy = "Staff" },
		"policy has":      func(c *Condition) { c.Policy = "é" },
		"max_ttl":         func(c *Condition) { c.MaxTTL = -time.Second },
		"max_ttl is":      func(c *Condition) { c.MaxTTL = 1500 * time.Millisecond },
		"expires":         func(c *Condition) { c.Expires = -1 },
		"labels":          func(c *Condition) { c.Labels = map[string]string{"": "v"} },
		"labels has":      func(c *Condition) { c.Labels = map[string]string{"k": "\xff"} },
		"labels has a te": func(c *Condition) { c.Labels = map[string]string{"\xff": "v"} },
	} {
		t.Run(name, func(t *testing.T) {
			c := fullCondition(t)
			change(&c)
			if text, err := c.Encode(); err == nil || text != "" || !strings.Contains(err.Error(), name) {
				t.Errorf("got %q, %v", text, err)
			}
		})
	}
}

// members of a good condition, in which tests change one at a time.
var members = map[string]string{
	"id":      `"AAECAwQFBgcICQoLDA0ODw"`,
	"user":    `"@alice:example.org"`,
	"device":  `"PHONE"`,
	"minted":  `1764000000000`,
	"mode":    `"open"`,
	"policy":  `"staff"`,
	"max_ttl": `60`,
	"expires": `1764009000000`,
	"labels":  `{"role":"admin"}`,
}

// conditionOf writes members as a condition, in alphabetical order.
func conditionOf(m map[string]string) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, strconv.Quote(key)+":"+m[key])
	}
	return "session {" + strings.Join(parts, ",") + "}"
}

// Each bad value of each member is refused. Where the text is JSON at all, the
// error names the member.
func TestParseConditionMembers(t *testing.T) {
	t.Parallel()
	if _, err := ParseCondition([]byte(conditionOf(members))); err != nil {
		t.Fatal(err)
	}
	notString := []string{"null", "true", "1", "[]", "{}", `["x"]`, "", `"\ud800"`, `"\x"`, "\"\xff\"", `"`, `x`}
	notInteger := []string{"null", `"1"`, "[]", "{}", "", "-1", "-0", "1.0", "1.5", "1e3", "1E0", "01", "+1", "0x1", "1_000",
		"9007199254740993", "99999999999999999999", strings.Repeat("9", 400), "1e400", "Infinity", "true"}
	notLabels := []string{"null", `"x"`, "1", "[]", "", `{"k":1}`, `{"k":null}`, `{"k":{}}`, `{"k":["v"]}`, `{"k":"v","k":"v"}`,
		`{"k":"v","\u006b":"v"}`, `{"k":"v",}`, `{k:"v"}`, `{"":"v"}`, `{"k"}`, `{"k":"v"`, "{\"k\":\"\xff\"}",
		`{"k":"` + strings.Repeat("v", 257) + `"}`, `{"` + strings.Repeat("k", 65) + `":"v"}`, strings.Repeat(`{"k":`, 300) + "1" + strings.Repeat("}", 300),
		`{"a":"","b":"","c":"","d":"","e":"","f":"","g":"","h":"","i":"","j":"","k":"","l":"","m":"","n":"","o":"","p":"","q":""}`}
	control := []string{`"a\u0000"`, `"a\n"`, `"\u007f"`, `"\u0085"`, `"` + strings.Repeat("x", 256) + `"`, "\"a\tb\""}
	tooLong := []string{`"` + strings.Repeat("x", 513) + `"`, `"` + strings.Repeat("\\u0001", 513) + `"`}
	for name, values := range map[string][]string{
		"id": append([]string{`""`, `"AAAAAAAAAAAAAAAAAAAAAA"`, `"AAECAwQFBgcICQoLDA0ODw=="`, `"AAECAwQFBgcICQoLDA0ODx"`,
			`"AAECAwQFBgcICQoLDA0OD"`, `"AAECAwQFBgcICQoLDA0OD/"`, `"AAECAwQFBgcICQoLDA0O\n\n"`}, notString...),
		"user":    append(append([]string{`""`}, control...), notString...),
		"device":  append(tooLong, notString...),
		"mode":    append([]string{`""`, `"Open"`, `"closed"`, `"open "`, `"mode(0)"`}, notString...),
		"policy":  append([]string{`""`, `"Staff"`, `"a b"`, `"a/b"`, `"é"`, `"a\u0000"`, `"` + strings.Repeat("p", 65) + `"`}, notString...),
		"minted":  notInteger,
		"max_ttl": append([]string{"0", "9223372037"}, notInteger...),
		"expires": append([]string{"0"}, notInteger...),
		"labels":  notLabels,
	} {
		t.Run(name, func(t *testing.T) {
			for _, value := range values {
				m := maps.Clone(members)
				m[name] = value
				got, err := ParseCondition([]byte(conditionOf(m)))
				if !errors.Is(err, ErrMalformed) || !reflect.DeepEqual(got, Condition{}) {
					t.Errorf("%s: got %+v, %v", value, got, err)
				} else if json.Valid([]byte(conditionOf(m)[len(conditionWord):])) && !strings.Contains(err.Error(), name) {
					t.Errorf("%s: error does not name the member: %v", value, err)
				}
			}
			twice := strings.TrimSuffix(conditionOf(members), "}") + `,"` + name + `":` + members[name] + "}"
			if _, err := ParseCondition([]byte(twice)); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), name) {
				t.Errorf("twice: got %v", err)
			}
			m := maps.Clone(members)
			delete(m, name)
			_, err := ParseCondition([]byte(conditionOf(m)))
			switch name {
			case "policy", "max_ttl", "expires", "labels":
				if err != nil {
					t.Errorf("without: %v", err)
				}
			default:
				if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), name) {
					t.Errorf("without: got %v", err)
				}
			}
			m[strings.ToUpper(name)] = members[name]
			if _, err := ParseCondition([]byte(conditionOf(m))); !errors.Is(err, ErrMalformed) {
				t.Errorf("in upper case: got %v", err)
			}
		})
	}
}

func TestParseConditionWhole(t *testing.T) {
	t.Parallel()
	good := conditionOf(members)
	for name, text := range map[string]string{
		"empty":            "",
		"word alone":       "session",
		"word and space":   "session ",
		"no object":        `session "x"`,
		"null":             "session null",
		"array":            "session [" + good[8:] + "]",
		"two spaces":       "session  " + good[8:],
		"no space":         "session" + good[8:],
		"upper case":       "Session " + good[8:],
		"other word":       "sessions " + good[8:],
		"need-declared":    "need-declared user " + good,
		"local":            "local " + good[8:],
		"true":             "true",
		"leading space":    " " + good,
		"trailing space":   good + " ",
		"trailing newline": good + "\n",
		"trailing object":  good + "{}",
		"trailing zero":    good + "\x00",
		"trailing comma":   strings.TrimSuffix(good, "}") + ",}",
		"unfinished":       strings.TrimSuffix(good, "}"),
		"closed twice":     good + "}",
		"unknown member":   strings.Replace(good, "{", `{"x":1,`, 1),
		"empty name":       strings.Replace(good, "{", `{"":1,`, 1),
		"name no string":   strings.Replace(good, "{", `{1:1,`, 1),
		"byte order mark":  "session \ufeff" + good[8:],
		"comment":          strings.Replace(good, "{", `{/**/`, 1),
		"too long":         strings.Replace(good, "{", "{"+strings.Repeat(" ", maxCondition+1-len(good)), 1),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseCondition([]byte(text))
			if !errors.Is(err, ErrMalformed) || !reflect.DeepEqual(got, Condition{}) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	for _, text := range []string{
		strings.Replace(good, "{", `{"`+strings.Repeat("x", 1000)+`":1,`, 1),
		`session {"` + strings.Repeat("x", 900) + `":1,"` + strings.Repeat("x", 900) + `":1}`,
		`session {"labels":{"` + strings.Repeat("x", 900) + `":"","` + strings.Repeat("x", 900) + `":""}}`,
		`session {"labels":{"` + strings.Repeat("x", 1800) + `":1}}`,
	} {
		if _, err := ParseCondition([]byte(text)); err == nil || len(err.Error()) > 300 {
			t.Errorf("long name: got an error of %d bytes", len(err.Error()))
		}
	}
	longest := strings.Replace(good, "{", "{"+strings.Repeat(" ", maxCondition-len(good)), 1)
	if _, err := ParseCondition([]byte(longest)); err != nil {
		t.Errorf("of %d bytes: %v", len(longest), err)
	}
	spaced := strings.NewReplacer(",", " ,\n", ":", ":\t").Replace(conditionOf(map[string]string{
		"id": members["id"], "user": `"u"`, "device": `""`, "minted": "0", "mode": `"rotate"`, "labels": "{}",
	}))
	got, err := ParseCondition([]byte(spaced))
	if want := (Condition{Session: testSession(t), User: "u", Mode: ModeRotate}); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("with white space: got %+v, %v", got, err)
	}
}

// Nothing of the text that was parsed is kept.
func TestParseConditionCopies(t *testing.T) {
	t.Parallel()
	text := []byte(conditionOf(members))
	kept := string(text)
	got, err := ParseCondition(text)
	if err != nil || string(text) != kept {
		t.Fatalf("text changed, or %v", err)
	}
	clear(text)
	if got.User != "@alice:example.org" || got.Labels["role"] != "admin" || got.Policy != "staff" {
		t.Errorf("got %+v", got)
	}
}

func TestMode(t *testing.T) {
	t.Parallel()
	for mode, name := range map[Mode]string{ModeOpen: "open", ModeRotate: "rotate", ModeHeld: "held"} {
		if got, err := ParseMode(name); err != nil || got != mode || mode.String() != name {
			t.Errorf("%s: got %d, %v; prints %s", name, got, err, mode)
		}
	}
	for _, text := range []string{"", "Open", "mode(0)", "open\n", "held,open"} {
		if got, err := ParseMode(text); err == nil || got != 0 {
			t.Errorf("%q: got %s, %v", text, got, err)
		}
	}
	for _, mode := range []Mode{0, 4, 255} {
		if want := "mode(" + strconv.Itoa(int(mode)) + ")"; mode.String() != want {
			t.Errorf("got %s, want %s", mode, want)
		}
	}
}

func TestSessionID(t *testing.T) {
	t.Parallel()
	id := NewSessionID()
	if id == (SessionID{}) || id == NewSessionID() {
		t.Fatalf("got %s", id)
	}
	text, err := id.MarshalText()
	if err != nil || len(text) != 22 || string(text) != id.String() {
		t.Errorf("got %s, %v", text, err)
	}
	var back SessionID
	if err := back.UnmarshalText(text); err != nil || back != id {
		t.Errorf("got %s, %v, want %s", back, err, id)
	}
	for _, bad := range []string{
		"", "AAECAwQFBgcICQoLDA0OD", "AAECAwQFBgcICQoLDA0ODwA", "AAECAwQFBgcICQoLDA0ODx", "AAECAwQFBgcICQoLDA0OD=",
		"AAECAwQFBgcICQoLDA0O++", "AAECAwQFBgcICQoLDA0OD\n", "AAECAwQFBgcICQoLDA0O\r\n", "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n",
		"AAECAwQFBgcICQoLDA0ODw==",
	} {
		t.Run(fmt.Sprintf("%q", bad), func(t *testing.T) {
			if got, err := ParseSessionID(bad); err == nil || got != (SessionID{}) {
				t.Errorf("got %s, %v", got, err)
			}
			if err := back.UnmarshalText([]byte(bad)); err == nil || back != id {
				t.Errorf("left %s, %v", back, err)
			}
		})
	}
	for b := range 256 {
		id[0] = byte(b)
		if id := withoutDash(id); id.String()[0] == '-' || b>>2 != 62 && id[0] != byte(b) {
			t.Errorf("first byte %#x gave %s", b, id)
		}
	}
}
