package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
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

// nodes are several processes over one Redis. Nothing else connects them, and
// nothing sends a client to the one that it came to before.
type nodes struct {
	configuration string
	mu            sync.Mutex
	processes     []*process
	clients       []*client.Client
}

const nodesLocation = "https://discharger.example"

// run starts or replaces a process.
func (n *nodes) run(t *testing.T, i int) {
	t.Helper()
	p, address, _ := startService(t, n.configuration)
	c, err := client.New(client.Config{URL: "http://" + address, Location: nodesLocation, Patience: -1})
	if err != nil {
		t.Fatal(err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.processes[i], n.clients[i] = p, c
}

func (n *nodes) any() *client.Client {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.clients[rand.IntN(len(n.clients))]
}

// restart has a process end in its own time, and starts another in its place.
func (n *nodes) restart(t *testing.T, i int) {
	t.Helper()
	n.mu.Lock()
	p := n.processes[i]
	n.mu.Unlock()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := p.wait(); code != 0 || err != nil {
		t.Fatalf("after SIGTERM it ended with %d, %v:\n%s", code, err, p.text())
	}
	n.run(t, i)
}

// discharge sends one request to any node until it is answered.
func (n *nodes) discharge(ctx context.Context, r client.Request) (client.Grant, error) {
	r.RequestID = fmt.Sprint(rand.Uint64())
	for {
		g, err := n.any().Discharge(ctx, r)
		if !errors.Is(err, client.ErrUnavailable) || ctx.Err() != nil {
			return g, err
		}
	}
}

// TestNodes refreshes at three processes, whichever comes, while they are
// restarted one after the other. No refresh is lost, and a logout at one is a
// logout at all.
func TestNodes(t *testing.T) {
	t.Parallel()
	ring, err := keyfile.NewService(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(t.TempDir(), "keys.json")
	if err := keyfile.Create(keys, ring); err != nil {
		t.Fatal(err)
	}
	theirs := caveat.GenerateKey()
	n := &nodes{processes: make([]*process, 3), clients: make([]*client.Client, 3)}
	n.configuration = fmt.Sprintf("data_dir: data\nkeys: {file: %s}\n"+
		"store: {redis: {addresses: [%s], timeouts: {dial: 10s, read: 10s, write: 10s}}}\nrequest_timeout: 20s\nshutdown_timeout: 1m\n"+
		"homeservers:\n  - {name: a.example, public_key: %s}\n", keys, redistest.Start(t).Socket, theirs.Public)
	for i := range n.processes {
		n.run(t, i)
	}
	service, err := n.any().Info(t.Context())
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
	const clients = 16
	last := make([]client.Request, clients)
	var refreshes [clients]atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for i := range last {
		m, err := hs.Mint(homeserver.MintParams{User: "@alice:a.example", Mode: caveat.ModeRotate})
		if err != nil {
			t.Fatal(err)
		}
		last[i].Access = client.Access{Macaroon: m.Macaroon}
		wg.Go(func() {
			for ctx.Err() == nil {
				g, err := n.discharge(t.Context(), last[i])
				if err != nil {
					t.Errorf("after %d refreshes: %v", refreshes[i].Load(), err)
					return
				}
				last[i].Token = g.Token
				refreshes[i].Add(1)
			}
		})
	}
	round := func() {
		for i := range refreshes {
			from := refreshes[i].Load()
			redistest.Eventually(t, "every client has refreshed again", func() bool {
				return refreshes[i].Load() >= from+2 || t.Failed()
			})
		}
	}
	round()
	for i := range n.processes {
		n.restart(t, i)
		round()
	}
	stop()
	wg.Wait()
	total := int64(0)
	for i := range refreshes {
		total += refreshes[i].Load()
	}
	t.Logf("%d refreshes during 3 restarts", total)
	if err := n.clients[0].Logout(t.Context(), last[0], wire.ScopeSession); err != nil {
		t.Fatalf("logout: %v", err)
	}
	for i, c := range n.clients {
		if _, err := c.Discharge(t.Context(), last[0]); !errors.Is(err, client.ErrRefused) {
			t.Errorf("logged out at one process, node %d answers %v", i, err)
		}
	}
}
