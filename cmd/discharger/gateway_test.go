package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/testkit"
)

// matrixStub is the smallest homeserver that a client can log in to.
type matrixStub struct {
	*httptest.Server
	devices atomic.Int64
	out     atomic.Bool   // its token was logged out
	logouts chan struct{} // gets one for each time
}

const stubToken = "canary-token-of-the-homeserver"

func newMatrixStub(t *testing.T) *matrixStub {
	s := &matrixStub{logouts: make(chan struct{}, 16)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/_matrix/client/v3/login":
			s.out.Store(false)
			_, _ = fmt.Fprintf(w, `{"user_id":"@u:hs","device_id":"DEV%d","access_token":%q}`, s.devices.Add(1), stubToken)
		case s.out.Load() || r.Header.Get("Authorization") != "Bearer "+stubToken:
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"errcode":"M_UNKNOWN_TOKEN"}`)
		case r.URL.Path == "/_matrix/client/v3/logout":
			s.out.Store(true)
			s.logouts <- struct{}{}
			_, _ = io.WriteString(w, `{}`)
		default:
			_, _ = io.WriteString(w, `{"user_id":"@u:hs"}`)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

// runProgram runs the program until the test ends.
func runProgram(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	program, err := exec.LookPath("discharger")
	testkit.NoError(t, err)
	p, err := start(dir, []string{"PATH=" + os.Getenv("PATH")}, program, args...)
	testkit.NoError(t, err)
	t.Cleanup(p.kill)
	return p
}

// matrixURL returns the address in the log of a gateway.
func matrixURL(t *testing.T, p *process) string {
	t.Helper()
	m, err := p.waitFor(`msg=gateway matrix=(\S+)`)
	testkit.NoError(t, err)
	return m[1]
}

func finish(t *testing.T, p *process) {
	t.Helper()
	testkit.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	if code, err := p.wait(); err != nil || code != 0 {
		t.Fatalf("exit code %d: %v\n%s", code, err, p.text())
	}
	if strings.Contains(p.text(), stubToken) {
		t.Error("the homeserver's token is in the log")
	}
}

// call sends a request to a gateway.
func call(t *testing.T, method, url, token string, body any) (int, map[string]any) {
	t.Helper()
	data, err := json.Marshal(body)
	testkit.NoError(t, err)
	req, err := http.NewRequest(method, url, bytes.NewReader(data))
	testkit.NoError(t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	testkit.NoError(t, err)
	defer resp.Body.Close()
	var out map[string]any
	_ = json.NewDecoder(resp.Body).Decode(&out)
	return resp.StatusCode, out
}

// listen and upstream are all it takes, and tokens survive a restart.
func TestServeWithGateway(t *testing.T) {
	t.Parallel()
	dir, hs := t.TempDir(), newMatrixStub(t)
	file := filepath.Join(dir, "discharger.yaml")
	testkit.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\n"+patientSetting+
		"gateway: {listen: 127.0.0.1:0, upstream: %q}\n", hs.URL), 0o600))
	p := runProgram(t, dir, "serve", "--config", file)
	url := matrixURL(t, p)
	status, in := call(t, "POST", url+"/_matrix/client/v3/login", "", map[string]any{"type": "m.login.password"})
	token, _ := in["access_token"].(string)
	if status != 200 || !strings.HasPrefix(token, "dga_") {
		t.Fatalf("login: %d %v", status, in)
	}
	status, in = call(t, "POST", url+"/_matrix/client/v3/login", "", map[string]any{"refresh_token": true})
	refresh, _ := in["refresh_token"].(string)
	if status != 200 {
		t.Fatalf("login: %d %v", status, in)
	}
	if info, err := os.Stat(filepath.Join(dir, "discharger-data", "gateway.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("key file: %v, %v", info, err)
	}
	testkit.NoError(t, p.cmd.Process.Signal(syscall.SIGHUP))
	if _, err := p.waitFor("msg=reloaded"); err != nil {
		t.Fatal(err)
	}
	if status, out := call(t, "POST", url+"/_matrix/client/v3/refresh", "", map[string]any{"refresh_token": refresh}); status != 200 {
		t.Fatalf("refresh after a reload: %d %v", status, out)
	} else {
		refresh, _ = out["refresh_token"].(string)
	}
	finish(t, p)

	p = runProgram(t, dir, "serve", "--config", file)
	url = matrixURL(t, p)
	if status, out := call(t, "GET", url+"/_matrix/client/v3/account/whoami", token, nil); status != 200 || out["user_id"] != "@u:hs" {
		t.Fatalf("whoami: %d %v\n%s", status, out, p.text())
	}
	if status, out := call(t, "POST", url+"/_matrix/client/v3/refresh", "", map[string]any{"refresh_token": refresh}); status != 200 {
		t.Fatalf("refresh: %d %v", status, out)
	}
	narrow := exec.Command(p.cmd.Path, "attenuate", "--for", "1h", "--read-only")
	narrow.Stdin = strings.NewReader(token)
	out, err := narrow.Output()
	testkit.NoError(t, err)
	if status, answer := call(t, "GET", url+"/_matrix/client/v3/joined_rooms", strings.TrimSpace(string(out)), nil); status != 200 {
		t.Errorf("narrowed: %d %v", status, answer)
	}
	if status, answer := call(t, "POST", url+"/_matrix/client/v3/logout", strings.TrimSpace(string(out)), nil); status != 403 || hs.out.Load() {
		t.Errorf("narrowed: %d %v", status, answer)
	}
	if status, out := call(t, "POST", url+"/_matrix/client/v3/logout", token, nil); status != 200 || !hs.out.Load() {
		t.Fatalf("logout: %d %v", status, out)
	}
	if status, out := call(t, "GET", url+"/_matrix/client/v3/account/whoami", token, nil); status != 401 || out["soft_logout"] != false {
		t.Fatalf("whoami: %d %v", status, out)
	}

	// An operator lists and revokes sessions with the gateway's key file.
	if status, out := call(t, "POST", url+"/_matrix/client/v3/login", "", map[string]any{}); status != 200 {
		t.Fatalf("login: %d %v", status, out)
	}
	service, admin, err := p.addresses()
	testkit.NoError(t, err)
	readyz(t, admin+"/readyz/gateway", 200, "ready")
	sessions := func(args ...string) string {
		t.Helper()
		keys := filepath.Join(dir, "discharger-data", "gateway.json")
		out, err := exec.Command(p.cmd.Path, append([]string{"sessions", args[0], "--service", service, "--key", keys}, args[1:]...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	<-hs.logouts // by the client, before
	if list := sessions("list", "@u:hs"); !strings.Contains(list, "DEV") {
		t.Errorf("the device is not in the list:\n%s", list)
	}
	sessions("revoke-user", "@u:hs")
	select {
	case <-hs.logouts:
	case <-time.After(patience):
		t.Errorf("the device is still there:\n%s", p.text())
	}

	// Without the homeserver the gateway is of no use, and the service is.
	hs.Close()
	readyz(t, admin+"/readyz/gateway", 503, "not ready")
	readyz(t, admin+"/readyz", 200, "ready")
	finish(t, p)

	// Missing keys are not replaced, since no token could be read with new ones.
	testkit.NoError(t, os.Remove(filepath.Join(dir, "discharger-data", "gateway.json")))
	p = runProgram(t, dir, "serve", "--config", file)
	if code, err := p.wait(); err != nil || code != 78 || !strings.Contains(p.text(), "was made by a gateway with keys") {
		t.Errorf("exit code %d: %v\n%s", code, err, p.text())
	}
}

// TestGatewayAlone runs a gateway beside a separate service with its key file alone.
func TestGatewayAlone(t *testing.T) {
	t.Parallel()
	dir, hs := t.TempDir(), newMatrixStub(t)
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		testkit.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return file
	}
	configuration := write("service.yaml", patientSetting)
	service := runProgram(t, dir, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--config", configuration)
	client, _, err := service.addresses()
	testkit.NoError(t, err)
	keys := filepath.Join(dir, "gateway.json")
	entry, err := exec.Command(service.cmd.Path, "keys", "new", "--kind", "homeserver", "--name", "matrix", "--service", client, keys).Output()
	testkit.NoError(t, err)
	write("service.yaml", string(entry)+patientSetting)
	testkit.NoError(t, service.cmd.Process.Signal(syscall.SIGHUP))
	if _, err := service.waitFor("msg=reloaded homeservers=1"); err != nil {
		t.Fatal(err)
	}
	file := write("gateway.yaml", fmt.Sprintf("admin_listen: 127.0.0.1:0\ndata_dir: %q\ngateway: {listen: 127.0.0.1:0, upstream: %q, keys_file: %q}\n",
		filepath.Join(dir, "gateway-data"), hs.URL, keys))
	p := runProgram(t, dir, "gateway", "--config", file)
	url := matrixURL(t, p)
	status, in := call(t, "POST", url+"/_matrix/client/v3/login", "", map[string]any{})
	token, _ := in["access_token"].(string)
	if status != 200 {
		t.Fatalf("login: %d %v\n%s", status, in, p.text())
	}
	if status, out := call(t, "GET", url+"/_matrix/client/v3/account/whoami", token, nil); status != 200 {
		t.Fatalf("whoami: %d %v", status, out)
	}
	m, err := p.waitFor(`msg=operators address=(\S+)`)
	testkit.NoError(t, err)
	resp, err := http.Get(m[1] + "/metrics")
	testkit.NoError(t, err)
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(text), `discharger_gateway_fetches_total{op="login",result="ok"} 1`) {
		t.Errorf("metrics: %v\n%s", err, text)
	}

	// A load balancer goes on sending requests while the service is away, and
	// stops when the homeserver is.
	readyz(t, m[1]+"/readyz", 200, "ready")
	finish(t, service)
	if out := readyz(t, m[1]+"/readyz", 200, "degraded"); out["service"] == "ok" || out["homeserver"] != "ok" || out["gateway_db"] != "ok" {
		t.Errorf("readyz: %v", out)
	}
	if status, out := call(t, "GET", url+"/_matrix/client/v3/account/whoami", token, nil); status != 200 {
		t.Errorf("whoami: %d %v", status, out)
	}
	hs.Close()
	if out := readyz(t, m[1]+"/readyz/gateway", 503, "not ready"); out["homeserver"] == "ok" {
		t.Errorf("readyz: %v", out)
	}
	finish(t, p)
}

// readyz waits for a readiness, and returns the body of the answer.
func readyz(t *testing.T, url string, status int, is string) map[string]any {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		got, out := call(t, "GET", url, "", nil)
		if got == status && out["status"] == is {
			return out
		}
		if time.Now().After(end) {
			t.Fatalf("readyz is %d %v, want %d %s", got, out, status, is)
		}
	}
}
