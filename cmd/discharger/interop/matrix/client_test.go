package matrix

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// runIn runs a program in a directory and returns what it wrote to standard
// output. What it wrote to standard error is in the error.
func runIn(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s%s", cmd, err, out, stderr.String())
	}
	return string(out), err
}

// body is a JSON object.
type body map[string]any

func (b body) text(key string) string {
	s, _ := b[key].(string)
	return s
}

// answer is what a request got.
type answer struct {
	status int
	header http.Header
	raw    string
	body   body // nil if it is not a JSON object
	asked  time.Time
}

// site is one address that Matrix clients speak to. What it says is kept.
type site struct {
	url  string
	mu   sync.Mutex
	said strings.Builder
}

// call makes a request, with a token unless that is empty.
func (s *site) call(t *testing.T, method, path, token string, in any) answer {
	t.Helper()
	a, err := s.try(method, path, token, in)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

func (s *site) try(method, path, token string, in any) (answer, error) {
	var content io.Reader = http.NoBody
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return answer{}, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, s.url+path, content)
	if err != nil {
		return answer{}, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	asked := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	s.mu.Lock()
	_ = resp.Header.Write(&s.said)
	s.said.Write(raw)
	s.mu.Unlock()
	a := answer{status: resp.StatusCode, header: resp.Header, raw: string(raw), asked: asked}
	_ = json.Unmarshal(raw, &a.body)
	return a, nil
}

// want fails the test unless the answer has this status and error code.
func (a answer) want(t *testing.T, status int, errcode string) answer {
	t.Helper()
	if a.status != status || a.body.text("errcode") != errcode {
		t.Fatalf("got %d %s, want %d %s", a.status, a.raw, status, errcode)
	}
	return a
}

func (a answer) ok(t *testing.T) answer {
	t.Helper()
	return a.want(t, http.StatusOK, "")
}

const clientV3 = "/_matrix/client/v3"

// user is somebody with an account.
type user struct {
	site           *site
	name, password string
}

// register makes an account, and logs out the device that comes with it.
func (s *site) register(t *testing.T, name string) *user {
	t.Helper()
	u := &user{s, name, "password of " + name}
	a := s.call(t, "POST", clientV3+"/register", "", body{
		"username": name, "password": u.password, "auth": body{"type": "m.login.dummy"},
	}).ok(t)
	s.call(t, "POST", clientV3+"/logout", a.body.text("access_token"), body{}).ok(t)
	return u
}

func (u *user) id() string { return "@" + u.name + ":localhost" }

// auth is the answer to a request for the password again.
func (u *user) auth(session string) body {
	return body{
		"type": "m.login.password", "session": session, "password": u.password,
		"identifier": body{"type": "m.id.user", "user": u.name},
	}
}

// device is one login of a user.
type device struct {
	user           *user
	id             string
	token, refresh string
	expires        time.Duration // as announced; 0: not at all
	asked          time.Time     // for the tokens
	used           time.Time     // before the last request that was granted; only a stage keeps it
	key            string        // identity key that was uploaded; empty: none
}

// login logs in. More is added to the request.
func (u *user) login(t *testing.T, more body) *device {
	t.Helper()
	a, err := u.tryLogin(more)
	if err != nil {
		t.Fatal(err)
	}
	d := &device{user: u, id: a.ok(t).body.text("device_id")}
	d.take(t, a)
	return d
}

func (u *user) tryLogin(more body) (answer, error) {
	in := body{"type": "m.login.password", "identifier": body{"type": "m.id.user", "user": u.name}, "password": u.password}
	for k, v := range more {
		in[k] = v
	}
	return u.site.try("POST", clientV3+"/login", "", in)
}

// take uses the tokens in an answer.
func (d *device) take(t *testing.T, a answer) {
	t.Helper()
	d.token, d.refresh, d.expires, d.asked = a.body.text("access_token"), a.body.text("refresh_token"), 0, a.asked
	if ms, ok := a.body["expires_in_ms"].(float64); ok {
		d.expires = time.Duration(ms) * time.Millisecond
	}
	if d.token == "" {
		t.Fatalf("no access token in %s", a.raw)
	}
}

// call makes a request. If the access token has run out since it was asked for,
// as it may at any time on a machine that pauses, it does what a client does: it
// refreshes, if it may, and asks again.
func (d *device) call(t *testing.T, method, path string, in any) answer {
	t.Helper()
	for {
		a := d.user.site.call(t, method, clientV3+path, d.token, in)
		if !d.ranOut(a) {
			return a
		}
		again := d.refreshed(t)
		if again.status != http.StatusOK {
			return again
		}
		d.take(t, again)
	}
}

// ranOut reports whether an answer says that the access token has run out, at a
// time when it may have.
func (d *device) ranOut(a answer) bool {
	return a.status == http.StatusUnauthorized && a.body["soft_logout"] == true && d.expires > 0 && time.Since(d.asked) >= d.expires
}

func (d *device) whoami(t *testing.T) answer {
	t.Helper()
	return d.call(t, "GET", "/account/whoami", nil)
}

// asIs asks who it is with the access token that it has, and does not refresh.
func (d *device) asIs(t *testing.T) answer {
	t.Helper()
	return d.user.site.call(t, "GET", clientV3+"/account/whoami", d.token, nil)
}

// alive fails the test unless the device is who it is.
func (d *device) alive(t *testing.T) {
	t.Helper()
	if a := d.whoami(t).ok(t); a.body.text("user_id") != d.user.id() || a.body.text("device_id") != d.id {
		t.Fatalf("somebody else: %s", a.raw)
	}
}

// dead fails the test unless the device is logged out for good.
func (d *device) dead(t *testing.T) {
	t.Helper()
	if a := d.whoami(t).want(t, http.StatusUnauthorized, "M_UNKNOWN_TOKEN"); a.body["soft_logout"] == true {
		t.Fatalf("logged out softly: %s", a.raw)
	}
}

// over fails the test unless an answer refuses a session that ended softly.
func (a answer) over(t *testing.T) answer {
	t.Helper()
	if a.want(t, http.StatusUnauthorized, "M_UNKNOWN_TOKEN").body["soft_logout"] != true {
		t.Fatalf("logged out hard: %s", a.raw)
	}
	return a
}

// replaced fails the test unless both tokens of the device are refused because
// of a newer login on it.
func (d *device) replaced(t *testing.T) {
	t.Helper()
	d.asIs(t).over(t)
	if d.refresh != "" {
		d.refreshed(t).over(t)
	}
}

// refreshed asks for new tokens with the one that it has.
func (d *device) refreshed(t *testing.T) answer {
	t.Helper()
	return d.user.site.call(t, "POST", clientV3+"/refresh", "", body{"refresh_token": d.refresh})
}

// at returns the user as a client of another site.
func (u *user) at(s *site) *user { return &user{s, u.name, u.password} }

// through makes a device's further requests go to a site, and returns it.
func (d *device) through(s *site) *device {
	d.user = d.user.at(s)
	return d
}

// randomName returns a name that is not in use.
func randomName() string { return rand.Text()[:12] }

// uploadKeys uploads identity keys of the device.
func (d *device) uploadKeys(t *testing.T) {
	t.Helper()
	key := rand.Text() + rand.Text()[:17] // as long as 32 bytes in base64
	d.call(t, "POST", "/keys/upload", body{"device_keys": body{
		"user_id": d.user.id(), "device_id": d.id, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"},
		"keys":       body{"curve25519:" + d.id: key, "ed25519:" + d.id: key},
		"signatures": body{d.user.id(): body{"ed25519:" + d.id: key}},
	}}).ok(t)
	d.key = key
}
