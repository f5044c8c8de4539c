package rules_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/cel"
	"github.com/discharger/discharger/policy/check"
	"github.com/discharger/discharger/policy/rules"
	"github.com/discharger/discharger/policy/schema"
)

// evaluate returns the decision of the policy p about a changed sample input.
func evaluate(t testing.TB, set *rules.Set, change func(*policy.Input)) (policy.Decision, error) {
	t.Helper()
	in := policy.SampleInput()
	in.Policy = "p"
	if change != nil {
		change(in)
	}
	return policy.Ask(context.Background(), set, in)
}

func TestFirstMatchWins(t *testing.T) {
	t.Parallel()
	set := mustLoad(t, `
version: 1
policies:
  p:
    rules:
      - {name: a, when: session.epoch > 10, then: {effect: allow, ttl: 1m}}
      - {name: b, when: session.epoch > 5, then: {effect: allow, ttl: 2m}}
    otherwise: {effect: allow, ttl: 3m}
`)
	for epoch, want := range map[uint64]string{11: "p/a 1m0s", 6: "p/b 2m0s", 5: "p/otherwise 3m0s"} {
		t.Run(want, func(t *testing.T) {
			d, err := evaluate(t, set, func(in *policy.Input) { in.Session.Epoch = epoch })
			if err != nil {
				t.Fatal(err)
			}
			if got := d.Rule + " " + d.TTL.String(); got != want {
				t.Errorf("epoch %d: %s, want %s", epoch, got, want)
			}
			if d.Hash != set.Hash() || len(d.Hash) != 16 {
				t.Errorf("hash is %q, want %q", d.Hash, set.Hash())
			}
		})
	}
}

// TestManyRules evaluates rules of several chains in order, also after a webhook without an
// opinion.
func TestManyRules(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("version: 1\nwebhooks: {w: {url: 'https://example.org/', secret_file: k}}\npolicies:\n  p:\n    rules:\n")
	for i := range 200 {
		then := fmt.Sprintf("{effect: allow, ttl: %ds}", i+1)
		if i%50 == 20 {
			then = "{webhook: w}"
		}
		fmt.Fprintf(&b, "      - {name: r%d, when: session.epoch == %d || user.id == \"@w%d\", then: %s}\n", i, i, i, then)
	}
	b.WriteString("    otherwise: deny\n    tests:\n")
	for i := range 200 {
		if i%50 == 20 {
			fmt.Fprintf(&b, "      - {name: t%d, input: {session: {epoch: %d}}, webhooks: {w: no_opinion}, expect: {effect: deny, rule: otherwise}}\n", i, i)
			fmt.Fprintf(&b, "      - {name: u%d, input: {user: {id: '@w%d'}, session: {epoch: 199}}, webhooks: {w: no_opinion}, expect: {rule: r199}}\n", i, i)
			fmt.Fprintf(&b, "      - {name: v%d, input: {session: {epoch: %d}}, webhooks: {w: revoke}, expect: {effect: revoke, rule: r%d}}\n", i, i, i)
			continue
		}
		fmt.Fprintf(&b, "      - {name: t%d, input: {session: {epoch: %d}}, expect: {rule: r%d, ttl: %ds}}\n", i, i, i, i+1)
	}
	set := mustLoad(t, b.String())
	if report := check.Tests(set); report.Failed() != 0 || len(report.Results) != 208 {
		t.Errorf("%d tests, %d failed", len(report.Results), report.Failed())
	}
}

func TestDecisions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		then string
		want policy.Decision
	}{
		{"allow", policy.Decision{Effect: policy.EffectAllow}},
		{"deny", policy.Decision{Effect: policy.EffectDeny}},
		{"revoke", policy.Decision{Effect: policy.EffectRevoke}},
		{"revoke_user", policy.Decision{Effect: policy.EffectRevokeUser}},
		{"reauth", policy.Decision{Effect: policy.EffectReauth, SoftLogout: true}},
		{"defer", policy.Decision{Effect: policy.EffectDefer}},
		{"{effect: defer, retry_after: 30s}", policy.Decision{Effect: policy.EffectDefer, RetryAfter: 30 * time.Second}},
		{"{effect: deny, code: no_1, message: 'No, sorry.', soft_logout: true}",
			policy.Decision{Effect: policy.EffectDeny, Code: "no_1", Message: "No, sorry.", SoftLogout: true}},
		{"{effect: allow, ttl: 1d}", policy.Decision{Effect: policy.EffectAllow, TTL: time.Hour}},
		{"{effect: allow, ttl: 90s}", policy.Decision{Effect: policy.EffectAllow, TTL: 90 * time.Second}},
		{"{effect: allow, ttl: grant.ttl + duration('1m')}", policy.Decision{Effect: policy.EffectAllow, TTL: 6 * time.Minute}},
		{"{effect: allow, ttl: 'request.homeserver ? duration(\"1m\") : duration(\"2m\")'}", policy.Decision{Effect: policy.EffectAllow, TTL: 2 * time.Minute}},
		{"{effect: allow, keep_sessions: 3}", policy.Decision{Effect: policy.EffectAllow, KeepSessions: 3}},
		{"{effect: allow, labels: {seen: '{request.ip}', old: ''}}",
			policy.Decision{Effect: policy.EffectAllow, Labels: map[string]string{"seen": "192.0.2.1", "old": ""}}},
		{`{effect: allow, caveats: ["client-ip {request.ip}", "epoch = {session.epoch}", "n: {{x}} {request.homeserver}", "at {now} {grant.ttl}"]}`,
			policy.Decision{Effect: policy.EffectAllow, Caveats: []string{"client-ip 192.0.2.1", "epoch = 1000", "n: {x} false", "at 2026-03-02T12:00:00Z 300s"}}},
		{`{effect: allow, caveats: ["map {{'a': user.id}['a']}"]}`, policy.Decision{}}, // doubled braces are braces
		{`{effect: allow, caveats: ["map { {'}': user.id}['}'] }"]}`,
			policy.Decision{Effect: policy.EffectAllow, Caveats: []string{"map @alice:example.org"}}},
	}
	for _, test := range tests {
		t.Run(test.then, func(t *testing.T) {
			t.Parallel()
			set, err := load(t, then(test.then))
			if test.want.Effect == "" {
				if err == nil {
					t.Error("loaded")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := evaluate(t, set, nil)
			if err != nil {
				t.Error(err)
			}
			test.want.Rule, test.want.Hash = "p/r", set.Hash()
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// TestDecisionsAreIndependent changes a decision and compares the next one.
func TestDecisionsAreIndependent(t *testing.T) {
	t.Parallel()
	set := mustLoad(t, then(`{effect: allow, caveats: [a b], labels: {x: y}}`))
	for range 2 {
		d, err := evaluate(t, set, nil)
		if err != nil || d.Caveats[0] != "a b" || d.Labels["x"] != "y" {
			t.Fatalf("%+v, %v", d, err)
		}
		d.Caveats[0], d.Labels["x"] = "changed", "changed"
	}
}

func TestUndecided(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 257)
	tests := []struct {
		name, file string
		change     func(*policy.Input)
		want       string
	}{
		{"unknown policy", rule("session.epoch > 3"), func(in *policy.Input) { in.Policy = "unknown" }, `policy "unknown": policy is unknown`},
		{"missing label", rule(`session.labels["role"] == "x"`), nil, `rule r: no such key: role`},
		{"no end", rule(`session.expires > now`), nil, "rule r: session.expires is unset; test has(session.expires) first"},
		{"sessions not counted", rule(`user.sessions > 3`), func(in *policy.Input) { in.User.Sessions = -1 }, "user.sessions is unset"},
		{"unknown address", rule(`request.ip in networks.office`), func(in *policy.Input) { in.Request.IP = "" }, "IP address is unknown"},
		{"no address", rule(`request.ip in networks.office`), func(in *policy.Input) { in.Request.IP = "x" }, `IP address "x" is invalid`},
		{"overflow", rule(`session.epoch * session.epoch > 3`), func(in *policy.Input) { in.Session.Epoch = 1 << 62 }, "overflow"},
		{"division by zero", rule(`7 / session.epoch > 3`), func(in *policy.Input) { in.Session.Epoch = 0 }, "divi"},
		{"no such day", rule(`days(session.epoch) > days(1)`), func(in *policy.Input) { in.Session.Epoch = 1 << 40 }, "out of range"},
		{"label is no network", rule(`request.ip in cidrs(session.device)`), nil, `such as 192.0.2.0/24, got "JLAFKJWSCS"`},
		{"ttl runs out", then("{effect: allow, ttl: session.created - now}"), nil, "rule r: ttl: want at least 1s, got -240h0m0s"},
		{"caveat with a space", then(`{effect: allow, caveats: ["client {request.client}"]}`),
			func(in *policy.Input) { in.Request.Client = "a b" }, `rule r: caveat: {request.client}: value contains ' '`},
		{"caveat with a line break", then(`{effect: allow, caveats: ["client {request.client}"]}`),
			func(in *policy.Input) { in.Request.Client = "a\nuser = @root" }, `value contains '\n'`},
		{"caveat with another line break", then(`{effect: allow, caveats: ["client {request.client}"]}`),
			func(in *policy.Input) { in.Request.Client = "a\u2028b" }, `value contains '\u2028'`},
		{"caveat with nothing", then(`{effect: allow, caveats: ["client {request.client}"]}`),
			func(in *policy.Input) { in.Request.Client = "" }, "value is empty"},
		{"caveat with too much", then(`{effect: allow, caveats: ["client {request.client}"]}`),
			func(in *policy.Input) { in.Request.Client = long }, "value has 257 bytes"},
		{"caveat that is no text", then(`{effect: allow, caveats: ["client {request.client}"]}`),
			func(in *policy.Input) { in.Request.Client = "a\xff" }, "is not UTF-8"},
		{"label with a line break", then(`{effect: allow, labels: {x: '{user.id}'}}`),
			func(in *policy.Input) { in.User.ID = "a\rb" }, `rule r: label x: {user.id}: value contains '\r'`},
		{"webhook offline", then("{webhook: w}") + "webhooks: {w: {url: 'https://example.org/', secret_file: k}}\n", nil, "rule r: no answer from webhook: w: webhook calls are disabled"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d, err := evaluate(t, mustLoad(t, test.file), test.change)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %+v, %v; want an error with %q", d, err, test.want)
			}
			if !reflect.DeepEqual(d, policy.Decision{}) {
				t.Errorf("both an error and the decision %+v", d)
			}
		})
	}
}

// loadAll loads a file and the built-in policies.
func loadAll(t testing.TB, text string) *rules.Set {
	t.Helper()
	set, err := rules.Load(rules.Config{FS: fstest.MapFS{"p.yaml": {Data: []byte(text)}}, Files: []string{"p.yaml"}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestUnknownPolicy(t *testing.T) {
	t.Parallel()
	set := loadAll(t, rule("session.epoch > 3"))
	if !set.Has("p") || !set.Has("") || !set.Has("strict") || set.Has("q") {
		t.Error("Has is wrong about the policies")
	}
	_, err := evaluate(t, set, func(in *policy.Input) { in.Policy = "q" })
	if !errors.Is(err, rules.ErrUnknownPolicy) {
		t.Errorf("got %v, want ErrUnknownPolicy", err)
	}
	d, err := evaluate(t, set, func(in *policy.Input) { in.Policy = "" })
	if err != nil || d.Rule != "default/otherwise" {
		t.Errorf("no name: %+v, %v; want the default policy", d, err)
	}
	if alone := mustLoad(t, rule("session.epoch > 3")); alone.Has("default") || alone.Has("strict") || !alone.Has("p") {
		t.Errorf("only the file's: %v", alone.Names())
	}
	own := loadAll(t, "version: 1\npolicies: {default: {otherwise: deny}, strict: {otherwise: defer}}\n")
	for name, want := range map[string]policy.Effect{"": policy.EffectDeny, "default": policy.EffectDeny, "strict": policy.EffectDefer, "guest": policy.EffectReauth} {
		t.Run("replaced/"+name, func(t *testing.T) {
			if d, err := evaluate(t, own, func(in *policy.Input) { in.Policy = name }); err != nil || d.Effect != want {
				t.Errorf("%+v, %v", d, err)
			}
		})
	}
}

// TestCostLimit evaluates an input that exceeds the bounds of its sizes.
func TestCostLimit(t *testing.T) {
	t.Parallel()
	set := mustLoad(t, rule(`session.labels.exists(k, session.labels[k] == user.id)`))
	labels := map[string]string{}
	for i := range 100000 {
		labels[fmt.Sprint(i)] = "x"
	}
	_, err := evaluate(t, set, func(in *policy.Input) { in.Session.Labels = labels })
	if !errors.Is(err, cel.ErrCost) || !strings.Contains(err.Error(), "rule r") {
		t.Errorf("got %v, want ErrCost of the rule r", err)
	}
}

func TestContext(t *testing.T) {
	t.Parallel()
	set := mustLoad(t, rule(`session.labels.exists(k, k == user.id)`))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	in := policy.SampleInput()
	in.Policy = "p"
	if d, err := policy.Ask(ctx, set, in); !errors.Is(err, context.Canceled) {
		t.Errorf("got %+v, %v; want the context's error", d, err)
	}
}

// lateContext ends after the first call of Err.
type lateContext struct {
	context.Context
	asked atomic.Bool
	done  chan struct{}
}

func (c *lateContext) Done() <-chan struct{} { return c.done }

func (c *lateContext) Err() error {
	if c.asked.Swap(true) {
		return context.Canceled
	}
	return nil
}

func TestContextInterruptsLoops(t *testing.T) {
	t.Parallel()
	set, err := rules.Load(rules.Config{
		FS:        fstest.MapFS{"p.yaml": {Data: []byte(rule(`session.labels.exists(k, k == user.id)`))}},
		Files:     []string{"p.yaml"},
		OnlyFiles: true,
		MaxCost:   1 << 40,
	})
	if err != nil {
		t.Fatal(err)
	}
	in := policy.SampleInput()
	in.Policy = "p"
	for i := range 1000 {
		in.Session.Labels[fmt.Sprint(i)] = "x"
	}
	if d, err := policy.Ask(context.Background(), set, in); err != nil || d.Effect != policy.EffectAllow {
		t.Fatalf("with time enough: %+v, %v", d, err)
	}
	ctx := &lateContext{Context: context.Background(), done: make(chan struct{})}
	close(ctx.done)
	if d, err := policy.Ask(ctx, set, in); !errors.Is(err, context.Canceled) || d.Effect != "" {
		t.Errorf("got %+v, %v; want the context's error", d, err)
	}
}

// TestCaveatsOfASchema loads policies with the caveats of a schema.
func TestCaveatsOfASchema(t *testing.T) {
	t.Parallel()
	std, err := schema.Std()
	if err != nil {
		t.Fatal(err)
	}
	parses := func(condition string) error {
		_, err := std.Parse(condition)
		return err
	}
	for caveat, want := range map[string]bool{
		"client-ip {request.ip}":                             true,
		"client-ip 192.0.2.0/24":                             true,
		`time-before {now + duration(\"1h\")}`:               true,
		"client-ip {user.id}":                                false,
		"client-op {request.ip}":                             false,
		`client-ip {session.labels[?\"x\"].orValue(\"no\")}`: false,
	} {
		t.Run(caveat, func(t *testing.T) {
			set, err := rules.Load(rules.Config{
				FS:        fstest.MapFS{"p.yaml": {Data: []byte(then(`{effect: allow, caveats: ["` + caveat + `"]}`))}},
				Files:     []string{"p.yaml"},
				OnlyFiles: true,
				Caveats:   parses,
			})
			if (err == nil) != want {
				t.Error(err)
			}
			if err == nil {
				if d, err := evaluate(t, set, nil); err != nil || len(d.Caveats) != 1 {
					t.Errorf("%+v, %v", d, err)
				}
			}
		})
	}
}

// panics is a caveat checker that panics once armed.
type panics struct{ armed bool }

func (p *panics) CheckCaveat(string) error {
	if p.armed {
		panic("boom")
	}
	return nil
}

func TestPanicIsAnError(t *testing.T) {
	t.Parallel()
	checker := &panics{}
	set, err := rules.Load(rules.Config{
		FS:      fstest.MapFS{"p.yaml": {Data: []byte(then(`{effect: allow, caveats: ["client-ip {request.ip}"]}`))}},
		Files:   []string{"p.yaml"},
		Caveats: checker.CheckCaveat,
	})
	if err != nil {
		t.Fatal(err)
	}
	checker.armed = true
	d, err := evaluate(t, set, nil)
	var panicked *policy.PanicError
	if !errors.As(err, &panicked) || panicked.Value != "boom" || d.Effect != "" {
		t.Errorf("got %+v, %v; want a PanicError", d, err)
	}
	checker.armed = false
	if _, err := evaluate(t, set, nil); err != nil {
		t.Errorf("after the panic: %v", err)
	}
}

func TestCaveatsAreChecked(t *testing.T) {
	t.Parallel()
	known := func(condition string) error {
		if condition != "client-ip 192.0.2.1" && condition != "safe" {
			return errors.New("unknown to homeservers")
		}
		return nil
	}
	loadWith := func(then string) (*rules.Set, error) {
		return rules.Load(rules.Config{FS: fstest.MapFS{"p.yaml": {Data: []byte(then)}}, Files: []string{"p.yaml"}, Caveats: known})
	}
	if _, err := loadWith(then(`{effect: allow, caveats: [unsafe]}`)); err == nil || !strings.Contains(err.Error(), "p.yaml:7:41: unknown to homeservers") {
		t.Errorf("unknown caveat: %v", err)
	}
	if _, err := loadWith(then(`{effect: allow, caveats: ["ip {request.ip}"]}`)); err == nil || !strings.Contains(err.Error(), "unknown to homeservers") {
		t.Errorf("unknown caveat in a template: %v", err)
	}
	set, err := loadWith(then(`{effect: allow, caveats: [safe, "client-ip {request.ip}"]}`))
	if err != nil {
		t.Fatal(err)
	}
	if d, err := evaluate(t, set, nil); err != nil || len(d.Caveats) != 2 {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := evaluate(t, set, func(in *policy.Input) { in.Request.IP = "192.0.2.2" }); err == nil {
		t.Errorf("invalid caveat accepted: %+v", d)
	}
}

// counter counts the calls of LiveSessions.
type counter struct{ calls int }

func (c *counter) LiveSessions(context.Context) (int, error) {
	c.calls++
	return 5, nil
}

// TestCountsSessions counts sessions at the first read of a rule only.
func TestCountsSessions(t *testing.T) {
	t.Parallel()
	hook := "webhooks: {w: {url: 'https://x.org/', secret_file: k}}\n"
	for name, test := range map[string]struct {
		file string
		want int
	}{
		"other field":      {rule("session.epoch > 3"), 0},
		"field":            {rule("user.sessions > 3"), 1},
		"field twice":      {rule("user.sessions > 30 || user.sessions < 4"), 1},
		"not reached":      {rule("session.epoch < 0 && user.sessions > 3"), 0},
		"presence":         {rule("has(user.sessions)"), 0},
		"binding":          {rule("'cel.bind(u, user, u.sessions > 3)'"), 1},
		"macro":            {rule("'[user].exists(u, u.sessions > 3)'"), 1},
		"optional":         {rule("user.?sessions.orValue(0) > 3"), 1},
		"keep_sessions":    {then("{effect: allow, keep_sessions: 3}"), 0},
		"caveat":           {then("{effect: allow, caveats: ['n {user.sessions}']}"), 1},
		"label":            {then("{effect: allow, labels: {n: '{user.sessions}'}}"), 1},
		"ttl":              {then("{effect: allow, ttl: 'days(user.sessions)'}"), 1},
		"offline webhook":  {then("{webhook: w}") + hook, 0},
		"no rule, keeping": {"version: 1\npolicies:\n  p: {otherwise: {effect: allow, keep_sessions: 3}}\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &counter{}
			_, _ = evaluate(t, mustLoad(t, test.file), func(in *policy.Input) { in.User.Sessions, in.Counter, in.Session.Epoch = -1, c, 10 })
			if c.calls != test.want {
				t.Errorf("counted %d times, want %d", c.calls, test.want)
			}
		})
	}
}
