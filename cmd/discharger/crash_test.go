package main_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

// TestKillNine kills the service with SIGKILL in the middle of refreshes and
// logouts, repeatedly. A session with an acknowledged logout stays ended, and no other
// is refused.
func TestKillNine(t *testing.T) {
	t.Parallel()
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	c := newCrash(t)
	for round := range rounds {
		c.start()
		c.check()
		c.load(20*time.Millisecond + rand.N(600*time.Millisecond))
		t.Logf("round %d: %d refreshes and %d logouts acknowledged so far, %d refreshes cut off", round, c.refreshes, c.logouts, c.cut)
	}
	c.start()
	c.check()
	if c.refreshes == 0 || c.logouts == 0 || c.cut == 0 {
		t.Errorf("%d refreshes, %d logouts, %d cut off: the load never met the kill", c.refreshes, c.logouts, c.cut)
	}
}

// crash is the service as a process of its own, and the clients that use it.
type crash struct {
	t         *testing.T
	dir       string
	binary    string
	process   *exec.Cmd
	client    *client.Client
	scattered *client.Client
	hs        *homeserver.Homeserver

	mu       sync.Mutex
	sessions []*survivor

	refreshes, logouts, cut int
}

// survivor is the state of a client, as it would have it on disk.
type survivor struct {
	access  client.Access
	token   client.RefreshToken
	pending string // request-id of a refresh that was not answered
	state   state
}

type state int

const (
	live    state = iota
	leaving       // a logout was sent, and not answered
	gone          // a logout was acknowledged
)

const crashLocation = "https://discharger.example"

func newCrash(t *testing.T) *crash {
	c := &crash{t: t, dir: t.TempDir()}
	c.binary = filepath.Join(c.dir, "discharger")
	if out, err := exec.Command("go", "build", "-o", c.binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	theirs := caveat.GenerateKey()
	config := fmt.Sprintf("listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\nrequest_timeout: 10s\ndata_dir: %s\nhomeservers:\n  - {name: a.example, public_key: %s}\n",
		filepath.Join(c.dir, "data"), theirs.Public)
	testkit.NoError(t, os.WriteFile(filepath.Join(c.dir, "discharger.yaml"), []byte(config), 0o600))
	c.start()
	service, err := c.client.Info(context.Background())
	testkit.NoError(t, err)
	master := homeserver.NewKey()
	c.hs, err = homeserver.New(homeserver.Config{
		Name: "a.example", Keys: homeserver.Keys{master}, KeyPair: theirs, Discharger: service, Location: crashLocation,
	})
	testkit.NoError(t, err)
	c.kill()
	return c
}

var listening = regexp.MustCompile(`msg=listening clients=(http://\S+)`)

// start runs the service and returns when it listens.
func (c *crash) start() {
	c.t.Helper()
	c.process = exec.Command(c.binary, "serve", "--config", filepath.Join(c.dir, "discharger.yaml"))
	c.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := c.process.StderrPipe()
	testkit.NoError(c.t, err)
	testkit.NoError(c.t, c.process.Start())
	c.t.Cleanup(c.kill)
	url := ""
	lines := bufio.NewScanner(stderr)
	for url == "" && lines.Scan() {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			url = m[1]
		}
	}
	if url == "" {
		c.t.Fatal("the service did not say where it listens")
	}
	go func() {
		for lines.Scan() { // it must not block on a full pipe
		}
	}()
	c.client, err = client.New(client.Config{URL: url, Location: crashLocation, Patience: -1})
	testkit.NoError(c.t, err)
	c.scattered, err = client.New(client.Config{URL: url, Location: crashLocation, Patience: -1, HTTPClient: scattered()})
	testkit.NoError(c.t, err)
}

// scattered makes every request from another address of this machine: so many
// refusals as are due here would slow one address down.
func scattered() *http.Client {
	var last atomic.Uint32
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			n := last.Add(1)
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 53, byte(n>>8), byte(n)|1)}}
			return d.DialContext(ctx, network, addr)
		},
	}}
}

func (c *crash) kill() {
	if c.process != nil {
		_ = c.process.Process.Kill()
		_ = c.process.Wait()
		c.process = nil
	}
}

// load lets clients refresh and log out until the service is killed: after so
// long, and not before it has acknowledged some of both.
func (c *crash) load(d time.Duration) {
	var wg sync.WaitGroup
	over, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		service := c.process.Process
		for end := time.Now().Add(d); ; time.Sleep(time.Millisecond) {
			select {
			case <-over: // all of them could not go on
				return
			default:
			}
			c.mu.Lock()
			enough := c.refreshes > 0 && c.logouts > 0
			c.mu.Unlock()
			if enough && !time.Now().Before(end) {
				_ = service.Kill()
				return
			}
		}
	}()
	for range 16 {
		wg.Go(func() {
			for n := 0; ; n++ {
				s := c.login()
				for range 1 + rand.IntN(4) {
					if !c.refresh(s) {
						return
					}
				}
				if n%3 == 0 && !c.logout(s) {
					return
				}
			}
		})
	}
	wg.Wait()
	close(over)
	<-done
	c.kill()
}

func (c *crash) login() *survivor {
	m, err := c.hs.Mint(homeserver.MintParams{User: "@alice:a.example", Mode: caveat.ModeRotate})
	if err != nil {
		c.t.Error(err)
		return &survivor{}
	}
	s := &survivor{access: client.Access{Macaroon: m.Macaroon}}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessions = append(c.sessions, s)
	return s
}

// refresh reports false when the service is gone.
func (c *crash) refresh(s *survivor) bool {
	if s.pending == "" {
		s.pending = fmt.Sprint(rand.Uint64())
	}
	g, err := c.client.Discharge(context.Background(), client.Request{Access: s.access, Token: s.token, RequestID: s.pending})
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		s.token, s.pending = g.Token, ""
		c.refreshes++
		return true
	case errors.Is(err, client.ErrUnavailable):
		c.cut++
	default:
		c.t.Errorf("a session in order: %v", err)
	}
	return false
}

func (c *crash) logout(s *survivor) bool {
	s.state = leaving
	err := c.client.Logout(context.Background(), client.Request{Access: s.access, Token: s.token}, wire.ScopeSession)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		s.state = gone
		c.logouts++
		return true
	}
	if !errors.Is(err, client.ErrUnavailable) {
		c.t.Errorf("logout: %v", err)
	}
	return false
}

// check requests a discharge for every session of the test.
func (c *crash) check() {
	c.t.Helper()
	work := make(chan int)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for i := range work {
				c.checkSession(i, c.sessions[i])
			}
		})
	}
	for i := range c.sessions {
		work <- i
	}
	close(work)
	wg.Wait()
}

func (c *crash) checkSession(i int, s *survivor) {
	service := c.client
	if s.state == gone {
		service = c.scattered
	}
	g, err := service.Discharge(context.Background(), client.Request{Access: s.access, Token: s.token, RequestID: s.pending})
	refused := errors.Is(err, client.ErrRefused)
	switch {
	case s.state == gone && !refused:
		c.t.Errorf("session %d was logged out, and its discharge gave %v", i, err)
	case s.state == live && err != nil:
		c.t.Errorf("session %d is live, and its discharge gave %v", i, err)
	case s.state == leaving && refused:
		s.state = gone
	case s.state == leaving && err == nil: // it never arrived
		s.state = live
	}
	if err == nil {
		s.token, s.pending = g.Token, ""
	}
}
