package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/discharger/discharger/cmd/discharger/command"
)

// startService runs the program with a configuration and returns it with the
// addresses of clients and operators. Its
// request timeout is long unless the configuration has one.
func startService(t *testing.T, configuration string) (p *process, client, admin string) {
	t.Helper()
	program, err := exec.LookPath("discharger")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if !strings.Contains(configuration, "request_timeout") {
		configuration += "\n" + patientSetting
	}
	if err := os.WriteFile(filepath.Join(dir, "discharger.yaml"), []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err = start(dir, nil, program, "serve", "--config", "discharger.yaml", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	client, admin, err = p.addresses()
	if err != nil {
		t.Fatal(err)
	}
	return p, strings.TrimPrefix(client, "http://"), admin
}

// slowRequest begins a request and returns when a handler is reading its body,
// of which five bytes are still to come.
func slowRequest(t *testing.T, address string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "POST /discharge HTTP/1.1\r\nHost: x\r\nBakery-Protocol-Version: 3\r\n"+
		"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("the answer is %q, %v", line, err)
	}
	if _, err := r.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return conn, r
}

func status(t *testing.T, url string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

// TestDrain checks that a service that stops is not ready, accepts no more requests,
// answers the one in progress, and exits with 0.
func TestDrain(t *testing.T) {
	t.Parallel()
	p, client, admin := startService(t, "shutdown_timeout: 1m")
	if got := status(t, admin+"/readyz"); got != http.StatusOK {
		t.Errorf("readyz is %d", got)
	}
	if got := status(t, admin+"/metrics"); got != http.StatusOK {
		t.Errorf("metrics is %d for operators", got)
	}
	if got := status(t, "http://"+client+"/metrics"); got != http.StatusNotFound {
		t.Errorf("metrics is %d for clients", got)
	}
	conn, r := slowRequest(t, client)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := p.waitFor("msg=draining"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for status(t, admin+"/readyz") != http.StatusServiceUnavailable {
		if ctx.Err() != nil {
			t.Fatal("readyz does not say that it is draining")
		}
	}
	for { // until the listener has closed, which comes after
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", client)
		if err != nil {
			break
		}
		c.Close()
		if ctx.Err() != nil {
			t.Fatal("it goes on taking connections")
		}
	}
	select {
	case <-p.done:
		t.Fatalf("it did not wait for the request:\n%s", p.text())
	default:
	}
	fmt.Fprint(conn, "id=zz")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusBadRequest {
		t.Errorf("the answer is %s, %q, %v", resp.Status, body, err)
	}
	if code, err := p.wait(); err != nil || code != 0 {
		t.Errorf("exit code %d, %v:\n%s", code, err, p.text())
	}
}

// A request that does not end does not keep the service from ending.
func TestDrainTimeout(t *testing.T) {
	t.Parallel()
	p, client, _ := startService(t, "shutdown_timeout: 50ms")
	slowRequest(t, client)
	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	code, err := p.wait()
	if err != nil || code != command.ExitFailed {
		t.Errorf("exit code %d, %v:\n%s", code, err, p.text())
	}
	if !strings.Contains(p.text(), "requests did not finish in 50ms") {
		t.Errorf("its log is\n%s", p.text())
	}
}
