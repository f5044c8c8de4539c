package matrix

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestHostile sends request targets through the gateway that servers behind it read
// in different ways. No answer contains a token of the homeserver, and a token narrowed
// to a room reaches only that room.
//
// The servers are hyper, which compares paths as they are; nginx with a proxy_pass
// that normalizes, before hyper; and Twisted with a reader of paths that decodes,
// cuts and folds.
func TestHostile(t *testing.T) {
	k := assembleGateway(t)
	echo := buildHyper(t)
	servers := map[string]func(*testing.T) string{
		"hyper": func(t *testing.T) string { return startHyper(t, echo) },
		"nginx": func(t *testing.T) string { return startNginx(t, startHyper(t, echo)) },
		"twisted": func(t *testing.T) string {
			return startEcho(t, k.python, absolute(t, "echo.py"))
		},
	}
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &homeserver{site: site{url: "http://" + start(t)}}
			d := deploy(t, k, h, settings{ttl: time.Hour})
			testHostile(t, k, d)
		})
	}
}

func absolute(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// buildHyper builds the server on hyper in the user's cache, and returns its path.
func buildHyper(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "discharger", "hyper")
	if err := os.MkdirAll(filepath.Join(dir, "src"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Cargo.toml", filepath.Join("src", "main.rs")} {
		want, err := os.ReadFile(filepath.Join("testdata", "hyper", name))
		if err != nil {
			t.Fatal(err)
		}
		if have, err := os.ReadFile(filepath.Join(dir, name)); err == nil && bytes.Equal(have, want) {
			continue // cargo compares modification times
		}
		if err := os.WriteFile(filepath.Join(dir, name), want, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(t, [][]string{{"cargo", "build", "--quiet", "--manifest-path", filepath.Join(dir, "Cargo.toml"), "--target-dir", filepath.Join(dir, "target")}})
	return filepath.Join(dir, "target", "debug", "echo")
}

func startHyper(t *testing.T, echo string) string {
	t.Helper()
	return startEcho(t, echo)
}

// startEcho starts a program that listens on the address in its last argument, and
// returns the address.
func startEcho(t *testing.T, name string, args ...string) string {
	t.Helper()
	addr := freeAddrs(t, 1)[0]
	ready(t, start(t, new(output), t.TempDir(), name, append(args, addr)...), "http://"+addr+"/_matrix/client/versions")
	return addr
}

// startNginx starts nginx before another server.
func startNginx(t *testing.T, behind string) string {
	t.Helper()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		nginx = "/usr/sbin/nginx" // not in the PATH of users
	}
	config, err := os.ReadFile(filepath.Join("testdata", "nginx.conf"))
	if err != nil {
		t.Fatal(err)
	}
	dir, addr := t.TempDir(), freeAddrs(t, 1)[0]
	file := filepath.Join(dir, "nginx.conf")
	text := strings.NewReplacer("DIR", dir, "ADDRESS", addr, "BEHIND", behind).Replace(string(config))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, new(output), dir, nginx, "-e", filepath.Join(dir, "error.log"), "-c", file)
	ready(t, p, "http://"+addr+"/_matrix/client/versions")
	return addr
}

// rawToken begins every token of the servers behind the gateway.
const rawToken = "raw_token_"

func testHostile(t *testing.T, k *kit, d *deployment) {
	g := d.gateways[0]
	a := g.call(t, "POST", tokenPaths[0], "", body{"type": "m.login.password"}).ok(t)
	if direct := d.homeserver.call(t, "POST", tokenPaths[0], "", body{}).ok(t); !strings.HasPrefix(direct.body.text("access_token"), rawToken) {
		t.Fatalf("the server gives out no tokens: %s", direct.raw)
	}
	token := a.body.text("access_token")
	narrowed := attenuated(t, k, token, "--room", narrowRoom)
	asked := &hostile{t: t, addr: strings.TrimPrefix(g.url, "http://"), slots: make(chan struct{}, 16)}
	for i, path := range tokenPaths {
		for j, target := range spellings(path) {
			if i == 0 || (i+j)%3 == 0 {
				asked.each(target, "")
			}
		}
	}
	for _, target := range escapes() {
		asked.each(target, narrowed)
	}
	for _, target := range spellings("/_matrix/client/v3/sync") {
		asked.each(target, narrowed)
	}
	for _, target := range []string{"*", "", "/", "host:80", "?", "#", ".", "/_matrix/client/v3/rooms/" + narrowRoom + "/messages"} {
		asked.each(target, "")
		asked.each(target, narrowed)
	}
	asked.wg.Wait()
	if asked.reached == 0 || asked.refused < 200 {
		t.Errorf("%d requests reached the server and %d were refused", asked.reached, asked.refused)
	}
	t.Logf("%d requests reached the server and %d were refused", asked.reached, asked.refused)
	if g.call(t, "GET", clientV3+"/account/whoami", token, nil).status != 200 {
		t.Error("the session is over")
	}
}

// attenuated returns a narrowed token.
func attenuated(t *testing.T, k *kit, token string, flags ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, k.discharger, append([]string{"attenuate"}, flags...)...)
	cmd.Stdin = strings.NewReader(token)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return strings.TrimSpace(string(out))
}

// hostile sends unnormalized requests, several at once.
type hostile struct {
	t                *testing.T
	addr             string
	wg               sync.WaitGroup
	slots            chan struct{}
	mu               sync.Mutex
	reached, refused int
}

// each sends a request target with several methods.
func (h *hostile) each(target, token string) {
	for _, method := range []string{"POST", "PUT", "GET"} {
		h.slots <- struct{}{}
		h.wg.Go(func() {
			defer func() { <-h.slots }()
			h.send(method, target, token)
		})
	}
}

// reading is the body of the servers' answers: the path that they read.
type reading struct {
	Path       *string `json:"path"`
	Authorized bool    `json:"authorized"`
}

var statusLine = regexp.MustCompile(`^HTTP/1\.[01] ([0-9]{3}) `)

func (h *hostile) send(method, target, token string) {
	said, err := exchangeRaw(h.addr, method, target, token)
	if err != nil {
		h.t.Errorf("%s %q: %v", method, target, err)
		return
	}
	text := string(said)
	if strings.Contains(text, rawToken) {
		h.t.Errorf("%s %q: a token of the homeserver's is in the answer: %s", method, target, text)
	}
	_, content, _ := strings.Cut(text, "\r\n\r\n")
	var got reading
	reached := json.Unmarshal([]byte(content), &got) == nil && got.Path != nil
	if reached && got.Authorized && token != "" && !permitted(*got.Path) {
		h.t.Errorf("%s %q: a token narrowed to a room reached %q", method, target, *got.Path)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if status := statusLine.FindStringSubmatch(text); reached {
		h.reached++
	} else if status == nil || status[1] >= "400" {
		h.refused++
	}
}

// permittedPath matches the paths that a token narrowed to a room may be used for,
// decoded.
var permittedPath = regexp.MustCompile(`^/_matrix/(client/versions|client/(r0|v3|unstable)/account/whoami|media/(r0|v1|v3)/(config|(download|thumbnail)/.+)|` +
	`client/(v1|unstable/org\.matrix\.msc3916)/media/(config|(download|thumbnail)/.+)|client/(api/v1|r0|v1|v3|unstable(/[^/]+)?)/rooms/` +
	regexp.QuoteMeta(narrowRoom) + `/[^/]+.*)$`)

// permitted reports whether a path that a server read is one of those.
func permitted(path string) bool {
	for range 10 {
		path = decodedOnce(path)
	}
	return permittedPath.MatchString(path) && !regexp.MustCompile(`(^|[/\\])\s*\.\.?\s*([/\\;]|$)`).MatchString(path)
}

// decodedOnce decodes percent-encoding where it is valid.
func decodedOnce(s string) string {
	return regexp.MustCompile(`%[0-9a-fA-F]{2}`).ReplaceAllStringFunc(s, func(code string) string {
		var c byte
		if _, err := fmt.Sscanf(code[1:], "%02x", &c); err != nil {
			return code
		}
		return string(rune(c))
	})
}

// exchangeRaw sends one request with the target as it is, and returns all bytes that
// come back.
func exchangeRaw(addr, method, target, token string) ([]byte, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		return nil, err
	}
	const content = `{"type":"m.login.password","refresh_token":"none"}`
	head := method + " " + target + " HTTP/1.1\r\nHost: matrix.example.org\r\nConnection: close\r\nContent-Type: application/json\r\n"
	if token != "" {
		head += "Authorization: Bearer " + token + "\r\n"
	}
	if _, err := fmt.Fprintf(conn, "%sContent-Length: %d\r\n\r\n%s", head, len(content), content); err != nil {
		return nil, err
	}
	said, err := io.ReadAll(conn)
	if len(said) > 0 {
		return said, nil // a server that refuses early may reset the connection
	}
	return said, ignoreReset(err)
}

func ignoreReset(err error) error {
	if err == nil || strings.Contains(err.Error(), syscall.ECONNRESET.Error()) {
		return nil
	}
	return err
}
