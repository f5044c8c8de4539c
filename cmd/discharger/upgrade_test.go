//go:build upgrade

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/wire"
)

// oldProgramVariable names the environment variable that holds the path of the
// program of an earlier version. The script "upgrade" of package store builds it.
const oldProgramVariable = "DISCHARGER_TEST_OLD_PROGRAM"

// rolling is two processes over one Redis: the first one of an earlier version,
// the second one of this.
type rolling struct {
	t           *testing.T
	clients     [2]*client.Client
	unavailable [2]int // answers of each that decided nothing
}

// runOld runs the program of an earlier version.
func runOld(t *testing.T, configuration string) (*process, *client.Client) {
	t.Helper()
	program := os.Getenv(oldProgramVariable)
	if program == "" {
		t.Fatalf("%s names no program", oldProgramVariable)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "discharger.yaml"), []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := start(dir, nil, program, "serve", "--config", "discharger.yaml", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	address, _, err := p.addresses()
	if err != nil {
		t.Fatal(err)
	}
	return p, newRollingClient(t, strings.TrimPrefix(address, "http://"))
}

func newRollingClient(t *testing.T, address string) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{URL: "http://" + address, Location: nodesLocation, Patience: -1})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// turn calls one process, and the other one if the first does not decide.
func (r *rolling) turn(first int, ask func(*client.Client) error) error {
	err := ask(r.clients[first])
	if errors.Is(err, client.ErrUnavailable) {
		r.unavailable[first]++
		err = ask(r.clients[1-first])
	}
	return err
}

func (r *rolling) refresh(ctx context.Context, first int, last *client.Request, id string) error {
	last.RequestID = id
	return r.turn(first, func(c *client.Client) error {
		g, err := c.Discharge(ctx, *last)
		if err == nil {
			last.Token = g.Token
		}
		return err
	})
}

// TestRollingUpgrade runs an earlier version beside this one. Sessions begin at
// either, refresh at both in turn, and end at either; a session is
// refused after its logout, and only then.
func TestRollingUpgrade(t *testing.T) {
	ctx := t.Context()
	ring, err := keyfile.NewService(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(t.TempDir(), "keys.json")
	if err := keyfile.Create(keys, ring); err != nil {
		t.Fatal(err)
	}
	theirs := caveat.GenerateKey()
	configuration := fmt.Sprintf("data_dir: data\nkeys: {file: %s}\n"+
		"store: {redis: {addresses: [%s], timeouts: {dial: 10s, read: 10s, write: 10s}}}\nrequest_timeout: 20s\nshutdown_timeout: 1m\n"+
		"homeservers:\n  - {name: a.example, public_key: %s}\n", keys, redistest.Start(t).Socket, theirs.Public)
	r := &rolling{t: t}
	old, caller := runOld(t, configuration)
	r.clients[0] = caller
	_, address, _ := startService(t, configuration)
	r.clients[1] = newRollingClient(t, address)
	service, err := r.clients[0].Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	master := homeserver.NewKey()
	hs, err := homeserver.New(homeserver.Config{
		Name: "a.example", Keys: homeserver.Keys{master}, KeyPair: theirs, Discharger: service, Location: nodesLocation,
	})
	if err != nil {
		t.Fatal(err)
	}
	const users, each = 6, 4
	var all [users][each]client.Request
	for u := range all {
		for i := range all[u] {
			m, err := hs.Mint(homeserver.MintParams{User: fmt.Sprintf("@user%d:a.example", u), Device: fmt.Sprintf("D%d", i), Mode: caveat.ModeRotate})
			if err != nil {
				t.Fatal(err)
			}
			all[u][i].Access = client.Access{Macaroon: m.Macaroon}
			for n := range 10 {
				if err := r.refresh(ctx, (u+i+n)%2, &all[u][i], fmt.Sprintf("%d-%d-%d", u, i, n)); err != nil {
					t.Fatalf("user %d, session %d, refresh %d: %v", u, i, n, err)
				}
			}
		}
	}
	t.Logf("after logins and refreshes, undecided were %d at the earlier version and %d at this one", r.unavailable[0], r.unavailable[1])
	// Of each user, one session ends, of the first two all.
	ended := make(map[*client.Request]bool)
	for u := range all {
		scope, at := wire.ScopeSession, u%2
		if u < 2 {
			scope = wire.ScopeUser
			for i := range all[u] {
				ended[&all[u][i]] = true
			}
		}
		ended[&all[u][0]] = true
		if err := r.turn(at, func(c *client.Client) error { return c.Logout(ctx, all[u][0], scope) }); err != nil {
			t.Errorf("user %d logs out at %d: %v", u, at, err)
		}
	}
	check := func(phase string) {
		t.Helper()
		for u := range all {
			for i := range all[u] {
				last := &all[u][i]
				for at := range r.clients {
					if ended[last] {
						if _, err := r.clients[at].Discharge(ctx, *last); err == nil {
							t.Errorf("%s: user %d, session %d was logged out and is let in at %d", phase, u, i, at)
						}
					} else if err := r.refresh(ctx, at, last, fmt.Sprintf("%s-%d-%d-%d", phase, u, i, at)); err != nil {
						t.Errorf("%s: user %d, session %d is refused at %d: %v", phase, u, i, at, err)
					}
				}
			}
		}
	}
	check("side by side")
	t.Logf("undecided were %d at the earlier version and %d at this one", r.unavailable[0], r.unavailable[1])
	if r.unavailable[1] > 0 {
		t.Errorf("this version left %d requests undecided", r.unavailable[1])
	}
	if err := old.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := old.wait(); code != 0 || err != nil {
		t.Fatalf("after SIGTERM the earlier version ended with %d, %v:\n%s", code, err, old.text())
	}
	_, address, _ = startService(t, configuration)
	r.clients[0] = newRollingClient(t, address)
	r.unavailable = [2]int{}
	check("afterwards")
	if r.unavailable != [2]int{} {
		t.Errorf("afterwards, %v requests were left undecided", r.unavailable)
	}
}
