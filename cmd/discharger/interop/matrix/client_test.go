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

// runIn runs a program in a directory and returns its standard output. The error
// contains its standard error.
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

// answer is the answer to a request.
type answer struct {
	status    int
	header    http.Header
	raw       string
	body      body // nil if it is not a JSON object
	requested time.Time
}

// site is an address of the client-server API. It keeps all answers.
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
	requested := time.Now()
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
	a := answer{status: resp.StatusCode, header: resp.Header, raw: string(raw), requested: requested}
	_ = json.Unmarshal(raw, &a.body)
	return a, nil
}

// want fails the test unless the answer has a status and an error code.
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

// user is a user with an account.
type user struct {
	site           *site
	name, password string
}

// register creates an account and logs out its first device.
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

// auth returns the auth object of user-interactive authentication with a password.
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
	requested      time.Time     // time of the request for the tokens
	used           time.Time     // before the last granted request; set by a stage only
	key            string        // uploaded identity key; empty: none
}

// login logs in, with further members in the request.
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

// take stores the tokens of an answer.
func (d *device) take(t *testing.T, a answer) {
	t.Helper()
	d.token, d.refresh, d.expires, d.requested = a.body.text("access_token"), a.body.text("refresh_token"), 0, a.requested
	if ms, ok := a.body["expires_in_ms"].(float64); ok {
		d.expires = time.Duration(ms) * time.Millisecond
	}
	if d.token == "" {
		t.Fatalf("no access token in %s", a.raw)
	}
}

// call makes a request. If the access token has expired, as it may at any time on a
// machine that pauses, call refreshes as a client does, if it can, and repeats the
// request.
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

// ranOut reports whether an answer refuses an expired access token, at a time when it
// may have expired.
func (d *device) ranOut(a answer) bool {
	return a.status == http.StatusUnauthorized && a.body["soft_logout"] == true && d.expires > 0 && time.Since(d.requested) >= d.expires
}

func (d *device) whoami(t *testing.T) answer {
	t.Helper()
	return d.call(t, "GET", "/account/whoami", nil)
}

// asIs calls whoami with the current access token, without a refresh.
func (d *device) asIs(t *testing.T) answer {
	t.Helper()
	return d.user.site.call(t, "GET", clientV3+"/account/whoami", d.token, nil)
}

// alive fails the test unless whoami returns the device.
func (d *device) alive(t *testing.T) {
	t.Helper()
	if a := d.whoami(t).ok(t); a.body.text("user_id") != d.user.id() || a.body.text("device_id") != d.id {
		t.Fatalf("another device: %s", a.raw)
	}
}

// dead fails the test unless the session ended hard.
func (d *device) dead(t *testing.T) {
	t.Helper()
	if a := d.whoami(t).want(t, http.StatusUnauthorized, "M_UNKNOWN_TOKEN"); a.body["soft_logout"] == true {
		t.Fatalf("logged out softly: %s", a.raw)
	}
}

// over fails the test unless an answer refuses a softly ended session.
func (a answer) over(t *testing.T) answer {
	t.Helper()
	if a.want(t, http.StatusUnauthorized, "M_UNKNOWN_TOKEN").body["soft_logout"] != true {
		t.Fatalf("logged out hard: %s", a.raw)
	}
	return a
}

// replaced fails the test unless both tokens of the device are refused as replaced by
// a newer login.
func (d *device) replaced(t *testing.T) {
	t.Helper()
	d.asIs(t).over(t)
	if d.refresh != "" {
		d.refreshed(t).over(t)
	}
}

// refreshed refreshes with the current refresh token.
func (d *device) refreshed(t *testing.T) answer {
	t.Helper()
	return d.user.site.call(t, "POST", clientV3+"/refresh", "", body{"refresh_token": d.refresh})
}

// at returns the user at another site.
func (u *user) at(s *site) *user { return &user{s, u.name, u.password} }

// through sends further requests of a device to a site, and returns the device.
func (d *device) through(s *site) *device {
	d.user = d.user.at(s)
	return d
}

// randomName returns an unused name.
func randomName() string { return rand.Text()[:12] }

// uploadKeys uploads identity keys of the device.
func (d *device) uploadKeys(t *testing.T) {
	t.Helper()
	d.tryUploadKeys(t).ok(t)
}

// tryUploadKeys is uploadKeys, and returns the answer.
func (d *device) tryUploadKeys(t *testing.T) answer {
	t.Helper()
	key := rand.Text() + rand.Text()[:17] // as long as 32 bytes in base64
	a := d.call(t, "POST", "/keys/upload", body{"device_keys": body{
		"user_id": d.user.id(), "device_id": d.id, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"},
		"keys":       body{"curve25519:" + d.id: key, "ed25519:" + d.id: key},
		"signatures": body{d.user.id(): body{"ed25519:" + d.id: key}},
	}})
	if a.status == http.StatusOK {
		d.key = key
	}
	return a
}
