package matrix

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// synapseVariable is the environment variable with the path of a Python virtual
// environment that has the packages of testdata/requirements.txt.
const synapseVariable = "DISCHARGER_SYNAPSE"

// findSynapse returns the Python that runs Synapse.
func findSynapse(t *testing.T) string {
	t.Helper()
	python := filepath.Join(os.Getenv(synapseVariable), "bin", "python")
	if os.Getenv(synapseVariable) != "" {
		_, err := runIn(".", python, "-c", "import synapse.app.homeserver")
		if err == nil {
			return python
		}
		t.Error(err)
	}
	t.Fatal(synapseVariable + " is not a Python virtual environment with Synapse; .ci/test makes one, as do: " +
		"python3 -m venv V; V/bin/pip install -r testdata/requirements.txt; export " + synapseVariable + "=$PWD/V")
	return ""
}

func synapseKind() *homeserverKind {
	return &homeserverKind{
		name:     "synapse",
		start:    startSynapse,
		keepsOld: true,
		database: "homeserver.db",
		watch: `CREATE TRIGGER seen_token AFTER INSERT ON access_tokens
			BEGIN INSERT INTO seen VALUES (NEW.token); END`,
		devices: "SELECT device_id FROM devices WHERE user_id = '@' || ? || ':localhost' AND NOT hidden",
		tokens:  "SELECT token FROM access_tokens WHERE user_id = '@' || ? || ':localhost' AND device_id = ?",
	}
}

// sharedSecret is the registration secret in testdata/synapse.yaml.
const sharedSecret = "fixture-shared-secret"

func startSynapse(t *testing.T, k *kit) *homeserver {
	t.Helper()
	h := &homeserver{kind: synapseKind(), dir: t.TempDir()}
	addr := freeAddrs(t, 1)[0]
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	h.url = "http://" + addr
	for to, from := range map[string]string{"synapse.yaml": "synapse.yaml", "log.yaml": "synapse-log.yaml"} {
		text, err := os.ReadFile(filepath.Join("testdata", from))
		if err != nil {
			t.Fatal(err)
		}
		h.write(t, to, strings.NewReplacer("DIR", h.dir, "HOST", host, "PORT", port).Replace(string(text)))
	}
	seed := make([]byte, 32)
	_, _ = rand.Read(seed)
	h.write(t, "signing.key", "ed25519 a_test "+base64.RawStdEncoding.EncodeToString(seed)+"\n")
	script, err := filepath.Abs(filepath.Join("testdata", "routes.py"))
	if err != nil {
		t.Fatal(err)
	}
	return h.started(t, start(t, &h.out, h.dir, k.python, script, "-c", "synapse.yaml"))
}

func (h *homeserver) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const synapseAdmin = "/_synapse/admin"

// registerAdmin creates an administrator's account and returns a session of it.
func (s *site) registerAdmin(t *testing.T, name string) *device {
	t.Helper()
	u := &user{s, name, "password of " + name}
	nonce := s.call(t, "GET", synapseAdmin+"/v1/register", "", nil).ok(t).body.text("nonce")
	mac := hmac.New(sha1.New, []byte(sharedSecret))
	mac.Write([]byte(strings.Join([]string{nonce, name, u.password, "admin"}, "\x00")))
	a := s.call(t, "POST", synapseAdmin+"/v1/register", "", body{
		"nonce": nonce, "username": name, "password": u.password, "admin": true, "mac": hex.EncodeToString(mac.Sum(nil)),
	}).ok(t)
	d := &device{user: u, id: a.body.text("device_id")}
	d.take(t, a)
	return d
}

// adminPath returns the path of a user's resource in the admin API.
func adminPath(version string, u *user, rest string) string {
	return synapseAdmin + "/" + version + "/users/" + url.PathEscape(u.id()) + rest
}
