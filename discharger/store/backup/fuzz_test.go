package backup

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/store/record"
)

// FuzzOpenBackup opens backups: an accepted one has as many records as its end
// states, and reads the same again.
func FuzzOpenBackup(f *testing.F) {
	var b bytes.Buffer
	w, err := NewWriter(&b, Header{Store: "discharger-1:0123456789012345678901", At: 1, Commit: 2})
	if err != nil {
		f.Fatal(err)
	}
	names := record.AppendText(record.AppendText(nil, "example.org"), "@alice:example.org")
	id := caveat.SessionID{1}
	for _, err := range []error{
		w.Frame(User, names, []byte("\x00\x00\x00\x00user")),
		w.Frame(Session, names, id[:], []byte("\x00\x00\x00\x00session")),
		w.Frame(Homeserver, record.AppendText(nil, "example.org"), []byte("record")),
		w.End(),
	} {
		if err != nil {
			f.Fatal(err)
		}
	}
	f.Add(b.Bytes())
	f.Add([]byte(magic + "{}\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "backup")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Open(path)
		if err != nil {
			return
		}
		n := 0
		err = got.Records(func(*Record) error { n++; return nil })
		if want := got.Users + got.Sessions + got.Devices + got.Homeservers + got.Events; err != nil || n != want {
			t.Fatalf("%d records, then %d, %v", want, n, err)
		}
	})
}
