package matrix

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func dendriteKind() *homeserverKind {
	return &homeserverKind{
		name:     "dendrite",
		start:    startDendrite,
		database: "userapi_accounts.db",
		watch: `CREATE TRIGGER seen_device AFTER INSERT ON userapi_devices
			BEGIN INSERT INTO seen VALUES (NEW.access_token); END`,
		devices: "SELECT device_id FROM userapi_devices WHERE localpart = ?",
		tokens:  "SELECT access_token FROM userapi_devices WHERE localpart = ? AND device_id = ?",
	}
}

func startDendrite(t *testing.T, k *kit) *homeserver {
	t.Helper()
	h := &homeserver{kind: dendriteKind(), dir: t.TempDir()}
	config, err := os.ReadFile(filepath.Join("testdata", "dendrite.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(h.dir, "dendrite.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(config), "DIR", h.dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := runIn(h.dir, k.keys, "-private-key", "matrix_key.pem"); err != nil {
		t.Fatal(err)
	}
	addrs := freeAddrs(t, 2)
	h.url = "http://" + addrs[0]
	return h.started(t, start(t, &h.out, h.dir, k.dendrite, "-config", file, "-http-bind-address", addrs[0],
		"-https-bind-address", addrs[1], "-really-enable-open-registration"))
}
