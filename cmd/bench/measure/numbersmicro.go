package measure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/discharger/discharger/cmd/bench/reference"
	"github.com/discharger/discharger/cmd/bench/server"
	"github.com/discharger/discharger/cmd/bench/workload"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/wire"
	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/rules"
)

// oneRound is how long an operation is repeated for one figure.
const oneRound = 100 * time.Millisecond

// microscopic measures operations of microseconds, in this process.
func microscopic(ctx context.Context, cfg NumbersConfig) (found []Number, err error) {
	opened, err := openingCaveats(ctx, cfg)
	if err != nil {
		return nil, err
	}
	verified, err := verifyingBundles(ctx, cfg)
	if err != nil {
		return nil, err
	}
	decided, err := defaultPolicy(cfg)
	return append(append(opened, verified...), decided...), err
}

func openingCaveats(ctx context.Context, cfg NumbersConfig) ([]Number, error) {
	service, err := keyfile.NewService(time.Now())
	if err != nil {
		return nil, err
	}
	pair := service.Of(keyfile.Discharger)[0].Pair()
	peer := keyfile.Peer{Name: server.HomeserverName, Service: "http://127.0.0.1", ServiceKey: pair.Public}
	ring, err := keyfile.NewHomeserver(peer, time.Now())
	if err != nil {
		return nil, err
	}
	l, err := workload.NewLogins(ring, pair.Public, 1)
	if err != nil {
		return nil, err
	}
	s, err := l.New(caveat.ModeOpen)
	if err != nil {
		return nil, err
	}
	id, err := wire.DecodeBase64(s.ID64)
	if err != nil {
		return nil, err
	}
	opener, err := caveat.NewOpener(caveat.OpenerConfig{
		Keys: []caveat.KeyPair{pair}, Homeservers: []caveat.Homeserver{{Name: server.HomeserverName, Key: ring.Of(keyfile.Seal)[0].Public}},
	})
	if err != nil {
		return nil, err
	}
	ours := operation{"open a caveat", func() error { _, err := opener.Open(id); return err }}
	theirs := operation{"open a caveat", reference.DecodeCaveat([32]byte(pair.Public), [32]byte(pair.Private.Key), id)}
	a, b, ratio, err := against(ctx, theirs, ours, cfg.Rounds, oneRound)
	if err != nil {
		return nil, err
	}
	return []Number{{
		What: "opening a caveat: how many times as fast", Reference: "the bakery's decoder", Unit: "×", Found: ratio,
		Note: fmt.Sprintf("%v and %v", b.CPU, a.CPU),
	}}, nil
}

// verifyingBundles measures the verification of a bundle from a service.
func verifyingBundles(ctx context.Context, cfg NumbersConfig) (_ []Number, err error) {
	s, err := server.Start(ctx, server.Config{Program: cfg.Program, Store: server.Bolt})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	grant, err := oneGrant(ctx, s)
	if err != nil {
		return nil, err
	}
	bundle, err := grant.Bundle()
	if err != nil {
		return nil, err
	}
	operations, err := verifying(ctx, s.Ring, grant)
	if err != nil {
		return nil, err
	}
	size := Number{What: "a bundle on the wire", AtMost: 800, Unit: "characters", Found: spreadOf([]float64{float64(len(bundle))}),
		Note: "in mode rotate"}
	var found []Number
	for i, row := range []struct {
		what string
		most float64
	}{{"verifying a new bundle, parsing and all checks included", .5}, {"verifying a cached bundle", 1. / 100}} {
		a, b, ratio, err := against(ctx, operations[i], operations[2], cfg.Rounds, oneRound)
		if err != nil {
			return nil, err
		}
		found = append(found, Number{
			What: row.what, Reference: "macaroon.v2 alone, which checks no condition", AtMost: row.most, Unit: "×", Found: ratio,
			Note: fmt.Sprintf("%v and %v, %.0f and %.0f allocations", a.CPU, b.CPU, a.Allocs, b.Allocs),
		})
	}
	return append(found, size), nil
}

// oneGrant fetches the first discharge of a new session in mode rotate.
func oneGrant(ctx context.Context, s *server.Service) (client.Grant, error) {
	h, err := workload.NewHomeserver(s.Ring, s.Ring.Peer.ServiceKey, 0)
	if err != nil {
		return client.Grant{}, err
	}
	m, err := h.Mint(homeserver.MintParams{User: "@alice:example.org", Device: "ABCDEFGHIJ", Mode: caveat.ModeRotate})
	if err != nil {
		return client.Grant{}, err
	}
	c, err := client.New(client.Config{URL: "http://" + s.Client, Location: s.Ring.Peer.Service, Patience: -1})
	if err != nil {
		return client.Grant{}, err
	}
	return c.Discharge(ctx, client.Request{Access: client.Access{Macaroon: m.Macaroon}})
}

// defaultPolicy measures the decision of the default policy about a refresh.
func defaultPolicy(cfg NumbersConfig) ([]Number, error) {
	reloader, err := rules.NewReloader(rules.ReloaderConfig{})
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	in := &policy.Input{
		Now: now, Action: policy.ActionRefresh, Policy: "default", Replay: policy.ReplayNone,
		Homeserver: policy.Homeserver{Name: server.HomeserverName}, User: policy.User{ID: "@alice:example.org", Sessions: -1},
		Session: policy.Session{
			ID: "AAECAwQFBgcICQoLDA0ODw", Device: "ABCDEFGHIJ", Mode: "rotate", Minted: now.Add(-time.Hour), Created: now.Add(-time.Hour),
			LastUsed: now.Add(-time.Minute), Epoch: 12, FirstIP: workload.ClientIP, LastIP: workload.ClientIP, FirstClient: workload.UserAgent, LastClient: workload.UserAgent,
		},
		Request: policy.Request{IP: workload.ClientIP, Client: workload.UserAgent},
		Grant:   policy.Grant{TTL: 5 * time.Minute, MaxTTL: time.Hour},
	}
	decide := operation{"default policy", func() error {
		_, err := policy.Ask(context.Background(), reloader, in)
		return err
	}}
	var took, allocs []float64
	for range cfg.Rounds {
		c, err := decide.measure(oneRound)
		if err != nil {
			return nil, err
		}
		took, allocs = append(took, micros(c.CPU)), append(allocs, c.Allocs)
	}
	return []Number{
		{What: "default policy, evaluated", AtMost: 1, Unit: "µs", Found: spreadOf(took)},
		{What: "default policy, evaluated", AtMost: 1, Unit: unitAllocations, Found: spreadOf(allocs)},
	}, nil
}

// memoryOfSessions measures the memory of sessions in Redis, three to a user.
func memoryOfSessions(ctx context.Context, cfg NumbersConfig) (_ []Number, err error) {
	const connections, perUser = 32, 3
	s, err := server.Start(ctx, server.Config{Program: cfg.Program, Store: server.Redis})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	l, err := workload.NewLogins(s.Ring, s.Ring.Peer.ServiceKey, perUser)
	if err != nil {
		return nil, err
	}
	if err := l.Fill(ctx, s.Client, connections, connections*perUser, caveat.ModeRotate); err != nil { // connections and scripts
		return nil, err
	}
	before, err := s.StoreSize()
	if err != nil {
		return nil, err
	}
	if err := l.Fill(ctx, s.Client, connections, cfg.Sessions, caveat.ModeRotate); err != nil {
		return nil, err
	}
	after, err := s.StoreSize()
	if err != nil {
		return nil, err
	}
	each := float64(after-before) / float64(cfg.Sessions)
	return []Number{{
		What: "a session in Redis, mode rotate, 3 to a user, its device included", AtMost: 200, Unit: "bytes", Found: spreadOf([]float64{each}),
	}}, nil
}
