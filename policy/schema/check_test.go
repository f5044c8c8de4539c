package schema

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cel.dev/cel-go/common/types/ref"
)

// noon is the time of every request here.
var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

func request() Request {
	return Request{
		Now:    noon,
		IP:     netip.MustParseAddr("203.0.113.7"),
		Values: map[string]any{"device": "PHONE", "scopes": []string{"rooms/read", "media/read"}},
	}
}

func checkerOf(t testing.TB, text string) *Checker {
	t.Helper()
	checker, err := New(Config{Schema: mustLoad(t, text)})
	if err != nil {
		t.Fatal(err)
	}
	return checker
}

func TestCheck(t *testing.T) {
	t.Parallel()
	text, _ := commentExample(t)
	checker := checkerOf(t, text)
	const alive = "time-before 2030-01-02T12:00:01Z"
	tests := map[string]struct {
		conditions []string
		want       error
		text       string
	}{
		"least":             {[]string{alive}, nil, ""},
		"all":               {[]string{alive, "client-ip 203.0.113.0/24", "user_id = @a:b", "device PHONE", "scope: rooms/read media/read", "read-only"}, nil, ""},
		"none":              {nil, ErrMissing, `caveat "time-before": required and missing`},
		"not the required":  {[]string{"user_id = @a:b"}, ErrMissing, `caveat "time-before": required and missing`},
		"repeated":          {[]string{alive, alive, "client-ip 203.0.113.7", "client-ip 203.0.0.0/16"}, nil, ""},
		"repeated, one bad": {[]string{alive, "time-before 2030-01-02T11:00:00Z", alive}, ErrUnmet, `caveat 2 "time-before": does not hold: now < value`},
		"repeated, not let": {[]string{alive, "device PHONE", "device PHONE"}, ErrRepeated, `caveat 3 "device": given more than once`},
		"at its end":        {[]string{"time-before 2030-01-02T12:00:00Z"}, ErrUnmet, `caveat 1 "time-before": does not hold: now < value`},
		"elsewhere":         {[]string{alive, "client-ip 203.0.114.0/24"}, ErrUnmet, `caveat 2 "client-ip": does not hold: value.containsIP(ip)`},
		"another device":    {[]string{alive, "device TABLET"}, ErrUnmet, `caveat 2 "device": does not hold: value == device`},
		"less scope":        {[]string{alive, "scope: rooms/read"}, ErrUnmet, `caveat 2 "scope": does not hold: scopes.all(s, s in value)`},
		"unknown":           {[]string{alive, "admin true"}, ErrUnknown, `caveat 2 "admin": not in the schema`},
		"unknown long name": {[]string{strings.Repeat("a", 65)}, ErrUnknown, "caveat 1: not in the schema: name is too long"},
		"case":              {[]string{"Time-before 2030-01-02T12:00:01Z"}, ErrUnknown, `caveat 1 "Time-before": not in the schema`},
		"empty":             {[]string{""}, ErrMalformed, "caveat 1: malformed: does not begin with a name"},
		"leading space":     {[]string{" " + alive}, ErrMalformed, "caveat 1: malformed: does not begin with a name"},
		"not ASCII":         {[]string{"tïme-before x"}, ErrUnknown, `caveat 1 "t": not in the schema`},
		"too long":          {[]string{strings.Repeat("a", MaxCondition+1)}, ErrMalformed, "caveat 1: malformed: want at most 65535 bytes, got 65536"},
		"no value":          {[]string{"time-before"}, ErrMalformed, `caveat 1 "time-before": malformed: is not written as "time-before 2030-01-02T15:04:05Z"`},
		"empty value":       {[]string{"time-before "}, ErrMalformed, `caveat 1 "time-before": malformed: value: want an RFC 3339 time in the years 1 to 9999`},
		"two spaces":        {[]string{"time-before  2030-01-02T12:00:01Z"}, ErrMalformed, `caveat 1 "time-before": malformed: value: want an RFC 3339 time in the years 1 to 9999`},
		"other style":       {[]string{alive, "device = PHONE"}, ErrMalformed, `caveat 2 "device": malformed: value: want letters, digits and . / - _ only`},
		"style for equals":  {[]string{alive, "user_id @a:b"}, ErrMalformed, `caveat 2 "user_id": malformed: is not written as "user_id = @alice:example.org"`},
		"value too long":    {[]string{alive, "device " + strings.Repeat("a", 65)}, ErrMalformed, `caveat 2 "device": malformed: want a value of at most 64 bytes, got 65`},
		"flag with a value": {[]string{alive, "read-only true"}, ErrMalformed, `caveat 2 "read-only": malformed: is not written as "read-only"`},
		"too many":          {slices.Repeat([]string{alive}, MaxConditions+1), ErrTooMany, "caveat: too many caveats: 101, at most 100"},
		"as many":           {slices.Repeat([]string{alive}, MaxConditions), nil, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := checker.Check(t.Context(), tt.conditions, request())
			if !errors.Is(err, tt.want) || err != nil && err.Error() != tt.text {
				t.Errorf("%s: got %v, want %v, %s", name, err, tt.want, tt.text)
			}
		})
	}
}

func TestCheckNeedsContext(t *testing.T) {
	t.Parallel()
	checker := checkerOf(t, `
format: 1
id: x
context:
  device: {type: string}
  level:  {type: int}
  since:  {type: time}
  idle:   {type: duration}
  known:  {type: bool}
  home:   {type: network}
  peers:  {type: list(ip)}
  levels: {type: list(int)}
versions:
  v1:
    device: {type: string, check: value == device}
    before: {type: time, check: now < value}
    from:   {type: ip, check: value == ip}
    level:  {type: int, check: value <= level && value in levels}
    after:  {type: time, check: value <= since}
    idle:   {type: duration, check: idle <= value}
    known:  {type: bool, check: value == known}
    home:   {type: ip, check: home.containsIP(value) && value in peers}
    parsed: {type: string, check: timestamp(value) > timestamp("2000-01-01T00:00:00Z")}
`)
	full := Request{Now: noon, IP: netip.MustParseAddr("::ffff:10.0.0.1"), Values: map[string]any{
		"device": "PHONE", "level": 3, "levels": []any{int64(1), 3}, "since": noon, "idle": time.Minute, "known": true,
		"home": netip.MustParsePrefix("::ffff:10.9.9.9/104"), "peers": []any{netip.MustParseAddr("10.0.0.1")}, "not declared": struct{}{},
	}}
	without := func(name string) Request {
		r := full
		r.Values = map[string]any{}
		for k, v := range full.Values {
			if k != name {
				r.Values[k] = v
			}
		}
		return r
	}
	with := func(name string, v any) Request {
		r := without(name)
		r.Values[name] = v
		return r
	}
	tests := map[string]struct {
		condition string
		request   Request
		want      error
		reason    string
	}{
		"device":             {"device PHONE", full, nil, ""},
		"no device":          {"device PHONE", without("device"), ErrUndecided, "context value device is missing"},
		"no values":          {"device PHONE", Request{}, ErrUndecided, "context value device is missing"},
		"device of bytes":    {"device PHONE", with("device", []byte("PHONE")), ErrUndecided, "context value device is not a string, or too large"},
		"long device":        {"device PHONE", with("device", strings.Repeat("a", 1025)), ErrUndecided, "context value device is not a string, or too large"},
		"not UTF-8":          {"device PHONE", with("device", "\xff"), ErrUndecided, "context value device is not a string, or too large"},
		"nil device":         {"device PHONE", with("device", nil), ErrUndecided, "context value device is not a string, or too large"},
		"before":             {"before 2030-01-02T12:00:01Z", full, nil, ""},
		"no clock":           {"before 2030-01-02T12:00:01Z", Request{}, ErrUndecided, "time is missing"},
		"from":               {"from 10.0.0.1", full, nil, ""},
		"from, mapped":       {"from ::ffff:10.0.0.1", full, nil, ""},
		"no address":         {"from 10.0.0.1", Request{}, ErrUndecided, "address of the client is missing"},
		"level":              {"level 3", full, nil, ""},
		"level of int64":     {"level 3", with("level", int64(3)), nil, ""},
		"level not in list":  {"level 2", full, ErrUnmet, "value <= level && value in levels"},
		"levels of texts":    {"level 3", with("levels", []string{"3"}), ErrUndecided, "context value levels is not a list(int), or too large"},
		"levels is a number": {"level 3", with("levels", 3), ErrUndecided, "context value levels is not a list(int), or too large"},
		"long list":          {"level 3", with("levels", slices.Repeat([]any{3}, 65)), ErrUndecided, "context value levels is not a list(int), or too large"},
		"after":              {"after 2030-01-02T12:00:00Z", full, nil, ""},
		"after nothing":      {"after 2030-01-02T12:00:00Z", with("since", time.Time{}), ErrUndecided, "context value since is not a time, or too large"},
		"idle":               {"idle 1m", full, nil, ""},
		"too idle":           {"idle 59s", full, ErrUnmet, "idle <= value"},
		"known":              {"known true", full, nil, ""},
		"home":               {"home 10.0.0.1", full, nil, ""},
		"home is an address": {"home 10.0.0.1", with("home", netip.MustParseAddr("10.0.0.1")), ErrUndecided, "context value home is not a network, or too large"},
		"invalid home":       {"home 10.0.0.1", with("home", netip.Prefix{}), ErrUndecided, "context value home is not a network, or too large"},
		"invalid peer":       {"home 10.0.0.1", with("peers", []any{netip.Addr{}}), ErrUndecided, "context value peers is not a list(ip), or too large"},
		"parsed":             {"parsed 2030-01-02T12:00:01Z", full, nil, ""},
		"not to be parsed":   {"parsed hunter2", full, ErrUndecided, "check fails on this value"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := checker.CheckOne(t.Context(), tt.condition, tt.request)
			var refused *CaveatError
			if !errors.Is(err, tt.want) || errors.As(err, &refused) && refused.Reason != tt.reason {
				t.Errorf("%s: got %v, want %v, %s", name, err, tt.want, tt.reason)
			}
		})
	}
}

// TestZone ignores the zone of a link-local client and refuses one in a caveat.
func TestZone(t *testing.T) {
	t.Parallel()
	checker := checkerOf(t, stdFile)
	r := Request{Now: noon, IP: netip.MustParseAddr("fe80::1%eth0")}
	if err := checker.CheckOne(t.Context(), "client-ip fe80::/64", r); err != nil {
		t.Error(err)
	}
	if err := checker.CheckOne(t.Context(), "client-ip fe80::1%eth0", r); !errors.Is(err, ErrMalformed) {
		t.Error(err)
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	checker := checkerOf(t, `
format: 1
id: x
versions:
  v1: {a: {type: flag, required: true, check: value}, b: {type: flag, check: value}}
  v2: {c: {type: flag, required: true, check: value}}
  v3: {d: {type: flag, check: value}}
`)
	tests := map[string]struct {
		version    int
		conditions string
		want       error
		text       string
	}{
		"newest":         {0, "a c", nil, ""},
		"newest, lacks":  {0, "a", ErrMissing, `caveat "c": required and missing`},
		"old":            {1, "a", nil, ""},
		"old, lacks":     {1, "b", ErrMissing, `caveat "a": required and missing`},
		"old with newer": {1, "a d", nil, ""},
		"second":         {2, "a c", nil, ""},
		"second, lacks":  {2, "a d", ErrMissing, `caveat "c": required and missing`},
		"third":          {3, "a c", nil, ""},
		"from the future": {4, "a c", ErrUndecided,
			"caveat: cannot be decided: version 4 of the schema is not known, the newest is 3"},
		"negative": {-1, "a c", ErrUndecided,
			"caveat: cannot be decided: version -1 of the schema is not known, the newest is 3"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := checker.Check(t.Context(), strings.Fields(tt.conditions), Request{Version: tt.version})
			if !errors.Is(err, tt.want) || err != nil && err.Error() != tt.text {
				t.Errorf("%s: got %v, want %v, %s", name, err, tt.want, tt.text)
			}
		})
	}
}

// TestRefusedBeforeUndecided: an undecided caveat does not hide one that does not hold.
func TestRefusedBeforeUndecided(t *testing.T) {
	t.Parallel()
	text, _ := commentExample(t)
	checker := checkerOf(t, text)
	r := request()
	delete(r.Values, "device")
	const alive = "time-before 2030-01-02T12:00:01Z"
	tests := map[string]struct {
		conditions []string
		want       error
		position   int
	}{
		"undecided alone":       {[]string{alive, "device PHONE"}, ErrUndecided, 2},
		"refused after":         {[]string{"device PHONE", "time-before 2030-01-02T11:00:00Z"}, ErrUnmet, 2},
		"unknown after":         {[]string{"device PHONE", "x"}, ErrUnknown, 2},
		"malformed after":       {[]string{"device PHONE", "time-before now"}, ErrMalformed, 2},
		"missing":               {[]string{"device PHONE"}, ErrMissing, 0},
		"repeated":              {[]string{alive, "device PHONE", "device PHONE"}, ErrRepeated, 3},
		"another undecided too": {[]string{alive, "device PHONE", "scope: a"}, ErrUndecided, 2},
	}
	delete(r.Values, "scopes")
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := checker.Check(t.Context(), tt.conditions, r)
			var refused *CaveatError
			if !errors.Is(err, tt.want) || !errors.As(err, &refused) || refused.Position != tt.position {
				t.Errorf("%s: got %v, want %v at %d", name, err, tt.want, tt.position)
			}
		})
	}
}

func TestOutOfTime(t *testing.T) {
	t.Parallel()
	checker := checkerOf(t, stdFile)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := checker.Check(ctx, []string{"time-before 2031-01-01T00:00:00Z"}, request())
	if !errors.Is(err, ErrUndecided) {
		t.Errorf("got %v", err)
	}
	if err := checker.Check(ctx, []string{"nonsense"}, request()); !errors.Is(err, ErrUnknown) {
		t.Errorf("got %v", err)
	}
}

// TestCostLimit tests the bound at run time, with larger values than a request can
// have.
func TestCostLimit(t *testing.T) {
	t.Parallel()
	schema := mustLoad(t, "format: 1\nid: x\ncontext: {many: {type: list(string)}}\nversions: {v1: {a: {type: string, check: 'many.all(m, m != value)'}}}")
	checker, err := New(Config{Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	a := checker.activation(Request{})
	a.context = []ref.Val{toCEL(slices.Repeat([]any{"x"}, maxCost))}
	refused := a.eval(schema.caveats[0], "y")
	if want := `caveat "a": cannot be decided: check costs too much`; refused == nil || refused.Error() != want {
		t.Errorf("got %v", refused)
	}
}

func TestMatchersNarrow(t *testing.T) {
	t.Parallel()
	schema := mustLoad(t, stdFile)
	calls := 0
	checker, err := New(Config{Schema: schema, Matchers: map[string]Matcher{
		"time-before": func(value any, r Request) bool {
			calls++
			return value.(time.Time).Sub(r.Now) <= time.Hour
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for condition, want := range map[string]error{
		"time-before 2030-01-02T12:30:00Z": nil,
		"time-before 2030-01-02T13:30:00Z": ErrUnmet,
		"time-before 2030-01-02T11:30:00Z": ErrUnmet, // the matcher would hold
	} {
		if err := checker.CheckOne(t.Context(), condition, request()); !errors.Is(err, want) {
			t.Errorf("%s: got %v", condition, err)
		}
	}
	if calls != 2 {
		t.Errorf("%d calls: a matcher is called if the check holds", calls)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	schema := mustLoad(t, stdFile)
	yes := func(any, Request) bool { return true }
	for want, config := range map[string]Config{
		"schema is missing":      {},
		`matcher "time_before"`:  {Schema: schema, Matchers: map[string]Matcher{"time_before": yes}},
		"is nil or of no caveat": {Schema: schema, Matchers: map[string]Matcher{"time-before": nil}},
	} {
		t.Run(want, func(t *testing.T) {
			if _, err := New(config); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

// TestFunc verifies single conditions, as a homeserver does.
func TestFunc(t *testing.T) {
	t.Parallel()
	type key struct{}
	check := checkerOf(t, stdFile).Func(func(ctx context.Context) (Request, error) {
		r, ok := ctx.Value(key{}).(Request)
		if !ok {
			return Request{}, errors.New("no request in the context")
		}
		return r, nil
	})
	ctx := context.WithValue(t.Context(), key{}, request())
	if err := check(ctx, "client-ip 203.0.113.7"); err != nil {
		t.Error(err)
	}
	if err := check(ctx, "client-ip 203.0.113.8"); !errors.Is(err, ErrUnmet) {
		t.Error(err)
	}
	if err := check(t.Context(), "client-ip 203.0.113.7"); !errors.Is(err, ErrUndecided) {
		t.Error(err)
	}
}

// TestErrorsAreDiscreet searches every error for the values of caveats and context
// values.
func TestErrorsAreDiscreet(t *testing.T) {
	t.Parallel()
	const canary = "canary7f3a"
	checker := checkerOf(t, `
format: 1
id: x
context: {secret: {type: string}, number: {type: int}}
versions:
  v1:
    s: {type: string, max_len: 20, check: value == secret}
    t: {type: string, check: timestamp(value) > now}
    d: {type: string, check: duration(value) > duration("1s")}
    i: {type: string, check: int(value) > number}
    n: {type: string, check: ip(value) == ip}
    m: {type: atom, check: '{"a": 1}[value] == 1'}
    k: {type: time, check: now < value}
    l: {type: list(ip), check: ip in value}
    u: {type: uri, check: value == secret}
`)
	r := request()
	r.Values = map[string]any{"secret": canary + "-secret", "number": canary}
	for _, condition := range []string{
		"s " + canary, "s " + canary + "-and-much-more", "t " + canary, "d " + canary, "i " + canary, "i 5", "n " + canary,
		"m " + canary, "k " + canary, "l " + canary, "u " + canary, "s\n" + canary, "s = " + canary + "\x00", "§" + canary, "k " + canary + "\xff",
	} {
		err := checker.Check(t.Context(), []string{condition}, r)
		if err == nil {
			t.Errorf("%q holds", condition)
			continue
		}
		if strings.Contains(err.Error(), canary) {
			t.Errorf("%q: %v", condition, err)
		}
		if _, err := checker.schema.Parse(condition); err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("%q: %v", condition, err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	text, _ := commentExample(t)
	checker := checkerOf(t, text)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			want, ip := error(nil), "203.0.113.7"
			if i%2 == 1 {
				want, ip = ErrUnmet, "198.51.100.1"
			}
			r := request()
			r.IP = netip.MustParseAddr(ip)
			for range 200 {
				err := checker.Check(t.Context(), []string{"time-before 2031-01-01T00:00:00Z", "client-ip 203.0.113.0/24", "device PHONE"}, r)
				if !errors.Is(err, want) {
					t.Errorf("got %v, want %v", err, want)
					return
				}
			}
		})
	}
	wg.Wait()
}
