package store

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
)

// FuzzOpenBackup reads backups: what is taken for one has as many records as it
// says, and gives the same ones again.
func FuzzOpenBackup(f *testing.F) {
	var b bytes.Buffer
	w, err := newBackupWriter(&b, BackupHeader{Store: "discharger-1:0123456789012345678901", At: 1, Commit: 2})
	if err != nil {
		f.Fatal(err)
	}
	names := appendText(appendText(nil, "example.org"), "@alice:example.org")
	id := caveat.SessionID{1}
	for _, err := range []error{
		w.frame(backupUser, names, []byte("\x00\x00\x00\x00user")),
		w.frame(backupSession, names, id[:], []byte("\x00\x00\x00\x00session")),
		w.frame(backupHomeserver, appendText(nil, "example.org"), []byte("record")),
		w.end(),
	} {
		if err != nil {
			f.Fatal(err)
		}
	}
	f.Add(b.Bytes())
	f.Add([]byte(backupMagic + "{}\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "backup")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := OpenBackup(path)
		if err != nil {
			return
		}
		n := 0
		err = got.records(func(*backupRecord) error { n++; return nil })
		if want := got.Users + got.Sessions + got.Devices + got.Homeservers + got.Events; err != nil || n != want {
			t.Fatalf("%d records, then %d, %v", want, n, err)
		}
	})
}
