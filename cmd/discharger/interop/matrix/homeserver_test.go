package matrix

import (
	"database/sql"
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	_ "modernc.org/sqlite" // the homeservers' databases
)

// homeserver is a running homeserver. Its site is the homeserver itself, with no
// gateway before it.
type homeserver struct {
	site
	kind    *homeserverKind
	dir     string
	out     output
	watcher *device // a session at the homeserver itself, for queries of devices' keys
}

// homeserverKind is a homeserver's software.
type homeserverKind struct {
	name  string
	start func(*testing.T, *kit) *homeserver
	// keepsOld: a login leaves older tokens of its device alive, and a logout
	// ends all tokens of the device. Otherwise a login ends them.
	keepsOld bool
	database string // file name
	watch    string // SQL that records every access token in the table seen
	devices  string // SQL for the devices of a user, by the name
	tokens   string // SQL for the access tokens of a user's device
}

// kinds returns every homeserver that the gateway is tested with.
func kinds() []*homeserverKind { return []*homeserverKind{dendriteKind(), synapseKind()} }

// before runs a test as a subtest before each homeserver, concurrently.
func before(t *testing.T, k *kit, test func(*testing.T, *homeserver)) {
	for _, kind := range kinds() {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			h := kind.start(t, k)
			h.watch(t)
			h.watcher = h.register(t, "watcher").login(t, nil)
			test(t, h)
		})
	}
}

// started waits until the homeserver answers.
func (h *homeserver) started(t *testing.T, p *process) *homeserver {
	t.Helper()
	ready(t, p, h.url+"/_matrix/client/versions")
	return h
}

// watch makes the database record every access token that the homeserver issues.
func (h *homeserver) watch(t *testing.T) {
	t.Helper()
	h.query(t, func(db *sql.DB) error {
		_, err := db.Exec("CREATE TABLE seen (token TEXT);" + h.kind.watch)
		return err
	})
}

// everyToken returns all access tokens ever issued.
func (h *homeserver) everyToken(t *testing.T) []string {
	t.Helper()
	return h.column(t, "SELECT token FROM seen")
}

// has reports whether a device exists.
func (h *homeserver) has(t *testing.T, d *device) bool {
	t.Helper()
	return slices.Contains(h.column(t, h.kind.devices, d.user.name), d.id)
}

// tokens returns the access tokens of a device.
func (h *homeserver) tokens(t *testing.T, d *device) []string {
	t.Helper()
	return h.column(t, h.kind.tokens, d.user.name, d.id)
}

// accepts reports whether the homeserver accepts an access token of its own.
func (h *homeserver) accepts(t *testing.T, token string) bool {
	t.Helper()
	return h.call(t, "GET", clientV3+"/account/whoami", token, nil).status == http.StatusOK
}

// identityKey returns a device's identity key as other users see it; empty:
// there is none.
func (h *homeserver) identityKey(t *testing.T, d *device) string {
	t.Helper()
	a := h.watcher.call(t, "POST", "/keys/query", body{"device_keys": body{d.user.id(): []string{}}}).ok(t)
	at := map[string]any(a.body)
	for _, name := range []string{"device_keys", d.user.id(), d.id, "keys"} {
		at, _ = at[name].(map[string]any)
	}
	return body(at).text("ed25519:" + d.id)
}

func (h *homeserver) column(t *testing.T, query string, args ...any) (all []string) {
	t.Helper()
	h.query(t, func(db *sql.DB) error {
		rows, err := db.Query(query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil {
				return err
			}
			all = append(all, text)
		}
		return rows.Err()
	})
	return all
}

func (h *homeserver) query(t *testing.T, use func(*sql.DB) error) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(h.dir, h.kind.database)+"?_pragma=busy_timeout(60000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := use(db); err != nil {
		t.Fatal(err)
	}
}
