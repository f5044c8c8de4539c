package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/discharger/discharger/cmd/discharger/httpd"
	"github.com/discharger/discharger/discharger/testkit"
)

// holder holds listening sockets as systemd does, and hands them to one process
// after the other.
type holder struct {
	t     *testing.T
	names []string
	files []*os.File
	urls  map[string]string
}

func holdSockets(t *testing.T, names ...string) *holder {
	t.Helper()
	h := &holder{t: t, names: names, urls: make(map[string]string)}
	for _, name := range names {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		testkit.NoError(t, err)
		f, err := l.(*net.TCPListener).File()
		testkit.NoError(t, err)
		h.urls[name] = "http://" + l.Addr().String()
		testkit.NoError(t, l.Close())
		t.Cleanup(func() { f.Close() })
		h.files = append(h.files, f)
	}
	return h
}

// run runs the program with the sockets. The shell gives it its process id.
func (h *holder) run(dir string, env []string, args ...string) *process {
	h.t.Helper()
	program, err := exec.LookPath("discharger")
	testkit.NoError(h.t, err)
	env = append(env, "PATH="+os.Getenv("PATH"), fmt.Sprintf("LISTEN_FDS=%d", len(h.files)), "LISTEN_FDNAMES="+strings.Join(h.names, ":"))
	p, err := startWith(dir, env, h.files, "sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh", program}, args...)...)
	testkit.NoError(h.t, err)
	h.t.Cleanup(p.kill)
	return p
}

// busyHomeserver answers syncs never, and anything else at once.
func busyHomeserver(t *testing.T) (url string, syncs <-chan struct{}) {
	polled := make(chan struct{}, 1024)
	ended := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/sync") {
			_, _ = io.WriteString(w, `{"versions":["v1.1"]}`)
			return
		}
		polled <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-ended:
		}
	}))
	t.Cleanup(func() { close(ended); s.Close() })
	return s.URL, polled
}

// load sends requests to gateway and service without a pause, on new connections, and
// counts the answers. It ends with ctx.
func (h *holder) load(ctx context.Context, answered *atomic.Int64) *sync.WaitGroup {
	var wg sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, url := range []string{
		h.urls[httpd.SocketGateway] + "/_matrix/client/versions", h.urls[httpd.SocketClient] + "/discharge/info", h.urls[httpd.SocketAdmin] + "/healthz",
	} {
		for range 2 {
			wg.Go(func() {
				for ctx.Err() == nil {
					status, err := get(ctx, client, url)
					switch {
					case ctx.Err() != nil:
					case err != nil:
						h.t.Errorf("%s: %v", url, err)
					case status != http.StatusOK:
						h.t.Errorf("%s: %d", url, status)
					default:
						answered.Add(1)
					}
				}
			})
		}
	}
	return &wg
}

func get(ctx context.Context, client *http.Client, url string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// A restart whose sockets a service manager holds refuses no request: long polls
// are answered 503, requests on the way are answered, and those that come while no
// process runs are answered by the next one.
func TestRestartRefusesNothing(t *testing.T) {
	t.Parallel()
	upstream, polled := busyHomeserver(t)
	dir, h := t.TempDir(), holdSockets(t, httpd.SocketGateway, httpd.SocketClient, httpd.SocketAdmin)
	testkit.NoError(t, os.WriteFile(filepath.Join(dir, "discharger.yaml"), fmt.Appendf(nil, "shutdown_timeout: 1h\n"+patientSetting+
		"gateway: {upstream: %q}\n", upstream), 0o600))
	args := []string{"serve", "--config", "discharger.yaml"}
	first := h.run(dir, nil, args...)
	if _, err := first.waitFor("msg=gateway"); err != nil {
		t.Fatal(err)
	}
	const polls = 50
	statuses := make(chan int, polls)
	for range polls {
		go func() {
			status, _ := get(t.Context(), http.DefaultClient, h.urls[httpd.SocketGateway]+"/_matrix/client/v3/sync?since=s1&timeout=30000")
			statuses <- status
		}()
	}
	for range polls {
		<-polled
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var answered atomic.Int64
	load := h.load(ctx, &answered)
	waitForMore := func() {
		for before := answered.Load(); answered.Load() < before+100 && !t.Failed(); {
			if _, err := get(ctx, http.DefaultClient, h.urls[httpd.SocketClient]+"/publickey"); err != nil {
				t.Fatal(err)
			}
		}
	}
	waitForMore()
	finish(t, first) // though the homeserver has not answered the polls
	for range polls {
		if status := <-statuses; status != http.StatusServiceUnavailable {
			t.Errorf("a poll got %d", status)
		}
	}
	second := h.run(dir, nil, args...)
	waitForMore()
	stop()
	load.Wait()
	finish(t, second)
}

// managed listens for the notifications to a service manager.
func managed(t *testing.T) (env string, states <-chan string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ds") // a socket's path must be short
	testkit.NoError(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	testkit.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	got := make(chan string, 16)
	go func() {
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			got <- string(buf[:n])
		}
	}()
	return "NOTIFY_SOCKET=" + path, got
}

// A service manager is notified when requests are answered, of reloads, and of the
// end, by both commands.
func TestNotify(t *testing.T) {
	t.Parallel()
	hs := newMatrixStub(t)
	for _, name := range []string{"serve", "gateway"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, h := t.TempDir(), holdSockets(t, httpd.SocketGateway, httpd.SocketAdmin)
			testkit.NoError(t, os.WriteFile(filepath.Join(dir, "discharger.yaml"), fmt.Appendf(nil, "listen: 127.0.0.1:0\n"+
				"gateway: {upstream: %q, keys_file: gateway.json}\n", hs.URL), 0o600))
			key := exec.Command("discharger", "keys", "init", "--config", "discharger.yaml")
			key.Dir = dir
			out, err := key.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			env, states := managed(t)
			p := h.run(dir, []string{env}, name, "--config", "discharger.yaml")
			expect := func(want string) {
				t.Helper()
				select {
				case got := <-states:
					if !strings.HasPrefix(got, want) {
						t.Errorf("notified of %q, want %q", got, want)
					}
				case <-time.After(patience):
					t.Fatalf("it has not notified of %s:\n%s", want, p.text())
				}
			}
			expect("READY=1")
			if status, err := get(t.Context(), http.DefaultClient, h.urls[httpd.SocketGateway]+"/_matrix/client/versions"); status != http.StatusUnauthorized || err != nil {
				t.Errorf("ready, and the homeserver's answer is %d, %v", status, err)
			}
			testkit.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
			expect("RELOADING=1\nMONOTONIC_USEC=")
			expect("READY=1")
			finish(t, p)
			expect("STOPPING=1")
		})
	}
}

// A socket that nothing would answer at is a mistake in a unit.
func TestSocketNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, command, socket, want string
	}{
		{"unknown", "serve", "discharger.socket", `socket "discharger.socket" from the service manager is unknown; FileDescriptorName is one of client, admin`},
		{"no gateway", "serve", httpd.SocketGateway, "FileDescriptorName is one of client, admin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := holdSockets(t, c.socket)
			p := h.run(t.TempDir(), nil, c.command)
			if code, err := p.wait(); err != nil || code != 78 || !strings.Contains(p.text(), c.want) {
				t.Errorf("exit code %d, %v:\n%s", code, err, p.text())
			}
		})
	}
}

// An upstream that leads back to the gateway is refused at the start.
func TestUpstreamLoop(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"serve", "gateway"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, h := t.TempDir(), holdSockets(t, httpd.SocketGateway, httpd.SocketAdmin)
			relay := relayTo(t, strings.TrimPrefix(h.urls[httpd.SocketGateway], "http://"))
			testkit.NoError(t, os.WriteFile(filepath.Join(dir, "discharger.yaml"), fmt.Appendf(nil, "listen: 127.0.0.1:0\n"+
				"gateway: {upstream: %q, keys_file: gateway.json}\n", "http://"+relay), 0o600))
			key := exec.Command("discharger", "keys", "init", "--config", "discharger.yaml")
			key.Dir = dir
			if out, err := key.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			p := h.run(dir, nil, name, "--config", "discharger.yaml")
			want := "gateway.upstream http://" + relay + ": upstream leads back to this gateway"
			if code, err := p.wait(); err != nil || code != 78 || !strings.Contains(p.text(), want) {
				t.Errorf("exit code %d, %v:\n%s", code, err, p.text())
			}
		})
	}
}

// relayTo forwards a port as a packet filter would.
func relayTo(t *testing.T, address string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", address)
			if err != nil {
				in.Close()
				continue
			}
			go func() { _, _ = io.Copy(out, in); out.Close() }()
			go func() { _, _ = io.Copy(in, out); in.Close() }()
		}
	}()
	return l.Addr().String()
}
