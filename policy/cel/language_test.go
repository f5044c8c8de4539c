package cel_test

import (
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/config/yamlfile"
	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/cel"
	"github.com/discharger/discharger/policy/rulefile"
)

// compile compiles the condition of the only rule of a file.
func compile(t testing.TB, when string) (*cel.Language, *cel.Expression, yamlfile.Problems) {
	t.Helper()
	f := rulefile.Read("p.yaml", []byte(`version: 1
networks: {office: [203.0.113.0/24, 203.0.113.128/25, 198.51.100.7, "2001:db8::/32", "2001:db8:1::/48", 0.0.0.0/8], nothing: []}
lists: {admins: ["@alice:example.org"]}
policies:
  p:
    rules:
      - name: r
        when: '`+when+`'
        then: deny
    otherwise: allow
`), true)
	if f.Failed() {
		t.Fatal(f.Problems())
	}
	l, err := cel.New(cel.Config{Networks: f.Networks, Lists: f.Lists, MaxCost: 10000})
	if err != nil {
		t.Fatal(err)
	}
	e := l.Condition(f.Document, f.Policies[0].Rules[0].When, "when")
	return l, e, f.Problems()
}

// holds reports whether a condition holds for a changed sample input.
func holds(t testing.TB, when string, change func(*policy.Input)) (bool, error) {
	t.Helper()
	l, e, problems := compile(t, when)
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	in := policy.SampleInput()
	if change != nil {
		change(in)
	}
	b := l.Bind(t.Context(), in)
	defer l.Release(b)
	return e.Holds(t.Context(), b)
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		when string
		ip   string
		want bool
	}{
		{"request.ip in networks.office", "203.0.113.0", true},
		{"request.ip in networks.office", "203.0.113.255", true},
		{"request.ip in networks.office", "203.0.114.0", false},
		{"request.ip in networks.office", "203.0.112.255", false},
		{"request.ip in networks.office", "198.51.100.7", true},
		{"request.ip in networks.office", "198.51.100.8", false},
		{"request.ip in networks.office", "0.255.255.255", true},
		{"request.ip in networks.office", "::ffff:198.51.100.7", true},
		{"request.ip in networks.office", "2001:db8:ffff::1", true},
		{"request.ip in networks.office", "2001:db9::", false},
		{"request.ip in networks.office", "2001:db8::1%eth0", true},
		{"request.ip in networks.office", "::", false},
		{"request.ip in networks.nothing", "203.0.113.0", false},
		{"networks.office.containsIP(request.ip)", "203.0.113.9", true},
		{"networks.office.containsIP(ip(request.ip))", "203.0.113.9", true},
		{"ip(request.ip) in networks.office", "203.0.113.9", true},
		{`request.ip in cidr("10.0.0.0/8")`, "10.9.8.7", true},
		{`request.ip in cidr("10.0.0.0/8")`, "11.9.8.7", false},
		{`request.ip in cidr("10.0.0.0/8")`, "::1", false},
		{`ip(request.ip) in cidr("10.0.0.0/8")`, "10.9.8.7", true},
		{`cidr("10.0.0.0/8").containsIP(request.ip)`, "10.9.8.7", true},
		{`request.ip in cidrs("10.0.0.0/8 192.0.2.7,2001:db8::/32")`, "192.0.2.7", true},
		{`request.ip in cidrs("10.0.0.0/8 192.0.2.7,2001:db8::/32")`, "2001:db8::7", true},
		{`request.ip in cidrs("10.0.0.0/8 192.0.2.7,2001:db8::/32")`, "192.0.2.8", false},
		{`request.ip in cidrs("")`, "192.0.2.8", false},
		{`ip(request.ip).isLoopback()`, "127.0.0.1", true},
		{`ip(request.ip).family() == 6`, "2001:db8::7", true},
		{`isIP(request.ip)`, "2001:db8::7", true},
		{`sameNetwork(session.first_ip, request.ip, 24, 48)`, "192.0.2.250", true},
		{`sameNetwork(session.first_ip, request.ip, 24, 48)`, "192.0.3.1", false},
		{`sameNetwork(session.first_ip, request.ip, 32, 64)`, "192.0.2.1", true},
		{`sameNetwork(session.first_ip, request.ip, 0, 0)`, "8.8.8.8", true},
		{`sameNetwork(session.first_ip, request.ip, 0, 0)`, "2001:db8::1", false},
		{`sameNetwork("2001:db8::1", request.ip, 24, 48)`, "2001:db8:0:ffff::1", true},
		{`sameNetwork("2001:db8::1", request.ip, 24, 48)`, "2001:db8:1::1", false},
		{`request.ip in ["192.0.2.1", "192.0.2.2"]`, "192.0.2.2", true},
		{`"k" in session.labels`, "192.0.2.2", false},
	}
	for _, test := range tests {
		t.Run(test.when+" "+test.ip, func(t *testing.T) {
			got, err := holds(t, test.when, func(in *policy.Input) { in.Request.IP = test.ip })
			if err != nil || got != test.want {
				t.Errorf("got %v, %v; want %v", got, err, test.want)
			}
		})
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	// 2 March 2026 is a Monday. Berlin is at +1, from 29 March at +2.
	tests := []struct {
		when string
		now  string
		want bool
	}{
		{`now.during("Mon-Fri 08:00-18:00", "Europe/Berlin")`, "2026-03-02T07:00:00Z", true},
		{`now.during("Mon-Fri 08:00-18:00", "Europe/Berlin")`, "2026-03-02T06:59:59Z", false},
		{`now.during("Mon-Fri 08:00-18:00", "Europe/Berlin")`, "2026-03-02T16:59:59Z", true},
		{`now.during("Mon-Fri 08:00-18:00", "Europe/Berlin")`, "2026-03-02T17:00:00Z", false},
		{`now.during("Mon-Fri 08:00-18:00", "Europe/Berlin")`, "2026-03-01T12:00:00Z", false},
		{`now.during("Mon-Fri 08:00-18:00", "Europe/Berlin")`, "2026-03-30T06:00:00Z", true},
		{`now.during("Mon-Fri 08:00-18:00", "Europe/Berlin")`, "2026-03-30T05:59:00Z", false},
		{`now.during("mon-FRI 08:00-18:00", "+01:00")`, "2026-03-30T07:00:00Z", true},
		{`now.during("Mon-Fri 08:00-18:00", "-03:30")`, "2026-03-02T11:29:00Z", false},
		{`now.during("Mon-Fri 08:00-18:00", "-03:30")`, "2026-03-02T11:30:00Z", true},
		{`now.during("Fri 22:00-06:00", "UTC")`, "2026-03-06T23:00:00Z", true},
		{`now.during("Fri 22:00-06:00", "UTC")`, "2026-03-07T05:59:00Z", true},
		{`now.during("Fri 22:00-06:00", "UTC")`, "2026-03-07T06:00:00Z", false},
		{`now.during("Fri 22:00-06:00", "UTC")`, "2026-03-06T05:00:00Z", false},
		{`now.during("Sat 22:00-06:00", "UTC")`, "2026-03-08T05:00:00Z", true},
		{`now.during("00:00-24:00", "UTC")`, "2026-03-08T23:59:59Z", true},
		{`now.during("09:00-17:00", "UTC")`, "2026-03-08T12:00:00Z", true},
		{`now.during("Sat,Sun", "UTC")`, "2026-03-08T12:00:00Z", true},
		{`now.during("Sat,Sun 10:00-12:00", "UTC")`, "2026-03-08T12:00:00Z", false},
		{`now.during("Fri-Mon", "UTC")`, "2026-03-02T12:00:00Z", true},
		{`now.during("Fri-Mon", "UTC")`, "2026-03-03T12:00:00Z", false},
		{`session.created.during("Mon", "UTC")`, "2026-03-02T12:00:00Z", false},
		{`now.getHours("Asia/Kolkata") == 17 && now.getMinutes("Asia/Kolkata") == 30`, "2026-03-02T12:00:00Z", true},
		{`now.getHours() == 12 && now.getDayOfWeek() == 1`, "2026-03-02T12:00:00Z", true},
		{`now.getDayOfWeek("Pacific/Auckland") == 2`, "2026-03-02T12:00:00Z", true},
		{`now.getFullYear("UTC") == 2026 && now.getMonth("UTC") == 2 && now.getDate("UTC") == 2`, "2026-03-02T12:00:00Z", true},
		{`now.getDayOfYear("UTC") == 60 && now.getDayOfMonth("UTC") == 1 && now.getSeconds("UTC") == 0 && now.getMilliseconds("UTC") == 0`, "2026-03-02T12:00:00Z", true},
		{`now - session.created > days(9)`, "2026-03-02T12:00:00Z", true},
		{`now - session.created == days(10) && days(1) == duration("24h")`, "2026-03-02T12:00:00Z", true},
	}
	for _, test := range tests {
		t.Run(test.when+" "+test.now, func(t *testing.T) {
			now, err := time.Parse(time.RFC3339, test.now)
			if err != nil {
				t.Fatal(err)
			}
			got, err := holds(t, test.when, func(in *policy.Input) {
				in.Now, in.Session.Created = now, now.Add(-10*24*time.Hour)
			})
			if err != nil || got != test.want {
				t.Errorf("got %v, %v; want %v", got, err, test.want)
			}
		})
	}
}

func TestWindows(t *testing.T) {
	t.Parallel()
	for _, window := range []string{"", " ", "Mon", "Mon-", "-Mon", "Mon--Fri", "8:00-18:00", "08:00", "08:00-08:00", "08:00-24:01", "25:00-26:00", "Mon 08:00-18:00 UTC", "08:00-18:00 Mon", "Mon,,Tue", "Mon Tue", "Sat, Sun 10:00-12:00"} {
		t.Run(window, func(t *testing.T) {
			_, _, problems := compile(t, `now.during("`+window+`", "UTC")`)
			if err := problems.Err(); (err == nil) != (window == "Mon") {
				t.Error(err)
			}
		})
	}
}

// TestEveryField reads each field of the input through an expression.
func TestEveryField(t *testing.T) {
	t.Parallel()
	in := policy.SampleInput()
	in.Replay, in.Action = policy.ReplayStale, policy.ActionActivate
	in.Homeserver.Generation, in.User.Generation = 3, 1<<63
	in.Session.Expires = in.Now.Add(time.Hour)
	in.Session.LastIP, in.Session.FirstClient, in.Session.LastClient = "192.0.2.9", "first", "last"
	in.Session.Labels["role"] = "admin"
	in.Request.Homeserver, in.Grant.Revokes = true, true
	in.Policy = "p"
	for _, when := range []string{
		`now == timestamp("2026-03-02T12:00:00Z")`, `action == "activate"`, `policy == "p"`, `replay == "stale"`,
		`homeserver.name == "example.org"`, `homeserver.generation == 3`,
		`user.id == "@alice:example.org"`, `user.generation == 9223372036854775807`, `user.sessions == 2`,
		`session.id == "AAAAAAAAAAAAAAAAAAAAAA"`, `session.device == "JLAFKJWSCS"`, `session.mode == "rotate"`,
		`session.minted == now - days(10)`, `session.created == now - days(10)`, `session.last_used == now - duration("5m")`,
		`has(session.expires) && session.expires == now + duration("1h")`, `session.epoch == 1000`,
		`session.first_ip == "192.0.2.1"`, `session.last_ip == "192.0.2.9"`, `session.first_client == "first"`, `session.last_client == "last"`,
		`session.labels == {"role": "admin"}`, `session.labels.exists_one(k, k == "role")`, `session.labels.size() == 1`,
		`request.ip == "192.0.2.1"`, `request.client == "Example on Android"`, `request.user_agent.contains("Android 15")`, `request.homeserver`,
		`grant.ttl == duration("5m")`, `grant.max_ttl == duration("1h")`, `grant.revokes`,
		`has(request.ip) && has(session.device) && has(request.client) && has(session.last_ip) && has(session.first_client) && has(session.last_client)`,
		`cel.bind(x, user.id, x + x) == user.id + user.id`, `user.id.lowerAscii().split(":")[1] == "example.org"`,
	} {
		t.Run(when, func(t *testing.T) {
			if got, err := holds(t, when, func(sample *policy.Input) { *sample = *in }); err != nil || !got {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for when, want := range map[string]string{
		`session.labels["role"] == "x"`:                             `p.yaml:8:30: warning: fails for sessions without the label "role"; write session.labels[?"role"].orValue("")`,
		`session.labels.role == "x"`:                                `p.yaml:8:31: warning: fails for sessions without the label "role"`,
		`session.expires < now`:                                     `p.yaml:8:24: warning: session.expires is unset for some sessions`,
		`has(session.expires) && session.expires < now`:             "",
		`has(session.labels.role) && session.labels.role == "x"`:    "",
		`"role" in session.labels && session.labels["role"] == "x"`: "",
		`session.labels[?"role"].orValue("") == "x"`:                "",
		`session.labels.exists(k, session.labels[k] == user.id)`:    "",
		`user.sessions > 3`:                                         "",
	} {
		t.Run(when, func(t *testing.T) {
			_, _, problems := compile(t, when)
			if got := problems.Error(); want == "" && got != "" || !strings.HasPrefix(got, want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}
