package matrix

import (
	"database/sql"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // what Dendrite keeps its tokens in
)

// dendrite is a running homeserver.
type dendrite struct {
	dir string
	url string
	out output
}

func startDendrite(t *testing.T, k *kit) *dendrite {
	t.Helper()
	d := &dendrite{dir: t.TempDir()}
	config, err := os.ReadFile(filepath.Join("testdata", "dendrite.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(d.dir, "dendrite.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(config), "DIR", d.dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := runIn(d.dir, k.keys, "-private-key", "matrix_key.pem"); err != nil {
		t.Fatal(err)
	}
	addrs := freeAddrs(t, 2)
	d.url = "http://" + addrs[0]
	p := start(t, &d.out, d.dir, k.dendrite, "-config", file, "-http-bind-address", addrs[0], "-https-bind-address", addrs[1],
		"-really-enable-open-registration")
	eventually(t, "Dendrite answers", func() bool {
		if p.ended() {
			t.Fatalf("Dendrite ended:\n%s", d.out.String())
		}
		resp, err := http.Get(d.url + "/_matrix/client/versions")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return d
}

// watch has SQLite remember every access token that Dendrite makes.
func (d *dendrite) watch(t *testing.T) {
	t.Helper()
	d.database(t, func(db *sql.DB) error {
		_, err := db.Exec(`CREATE TABLE seen (device TEXT, token TEXT);
			CREATE TRIGGER seen_device AFTER INSERT ON userapi_devices
			BEGIN INSERT INTO seen VALUES (NEW.device_id, NEW.access_token); END`)
		return err
	})
}

// tokens returns every access token that there ever was.
func (d *dendrite) tokens(t *testing.T) []string {
	t.Helper()
	return d.column(t, "SELECT token FROM seen")
}

// has reports whether a device exists.
func (d *dendrite) has(t *testing.T, device string) bool {
	t.Helper()
	return len(d.column(t, "SELECT device_id FROM userapi_devices WHERE device_id = ?", device)) > 0
}

func (d *dendrite) column(t *testing.T, query string, args ...any) (all []string) {
	t.Helper()
	d.database(t, func(db *sql.DB) error {
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

func (d *dendrite) database(t *testing.T, use func(*sql.DB) error) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(d.dir, "userapi_accounts.db")+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := use(db); err != nil {
		t.Fatal(err)
	}
}
