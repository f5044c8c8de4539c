package policy

import "time"

// SampleInput returns the input that tests in rule files modify: Alice refreshes a
// session of ten days from its only address, at noon on a Monday.
func SampleInput() *Input {
	return Sample(time.Date(2026, time.March, 2, 12, 0, 0, 0, time.UTC), ActionRefresh)
}

// Sample returns the sample input at another time, or for an activation, with a session
// without history.
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
