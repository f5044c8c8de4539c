package policy

import "time"

// SampleInput returns the request that tests in rule files change a few fields
// of: Alice refreshes, at noon of a Monday, a session of ten days from the
// address she has always had.
func SampleInput() *Input {
	return Sample(time.Date(2026, time.March, 2, 12, 0, 0, 0, time.UTC), ActionRefresh)
}

// Sample is SampleInput at another time, or at activation, where the session
// has no history yet.
func Sample(now time.Time, action Action) *Input {
	const addr, client, agent = "192.0.2.1", "Example on Android", "Example/1.0 (Phone; Android 15)"
	in := &Input{
		Now: now, Action: action, Policy: DefaultName, Replay: ReplayNone,
		Homeserver: Homeserver{Name: "example.org"},
		User:       User{ID: "@alice:example.org", Sessions: 2},
		Session: Session{
			ID: "AAAAAAAAAAAAAAAAAAAAAA", Device: "JLAFKJWSCS", Mode: "rotate",
			Minted: now.Add(-10 * 24 * time.Hour), Created: now.Add(-10 * 24 * time.Hour), LastUsed: now.Add(-5 * time.Minute),
			Epoch: 1000, FirstIP: addr, LastIP: addr, FirstClient: client, LastClient: client,
			Labels: map[string]string{},
		},
		Request: Request{IP: addr, Client: client, UserAgent: agent},
		Grant:   Grant{TTL: 5 * time.Minute, MaxTTL: time.Hour},
	}
	if action == ActionActivate {
		in.Session.Minted, in.Session.Created, in.Session.LastUsed, in.Session.Epoch = now, now, now, 0
	}
	return in
}
