package store_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/discharger/discharger/discharger"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/store"
)

// childEnv makes this binary a process that writes until it is killed.
const childEnv = "STORE_TEST_WRITE_TO"

func TestMain(m *testing.M) {
	store.SetRedisLog(nil)
	if path := os.Getenv(childEnv); path != "" {
		if err := writeUntilKilled(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func openBolt(t testing.TB, cfg store.BoltConfig) *store.Bolt {
	t.Helper()
	b, err := store.OpenBolt(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// killUser is whose sessions the process that gets killed writes.
var killUser = discharger.UserKey{Homeserver: "example.org", User: "@alice:example.org"}

// writeUntilKilled has several goroutines write sessions, by both ways, and
// says of each when it was acknowledged.
func writeUntilKilled(path string) error {
	b, err := store.OpenBolt(store.BoltConfig{Path: path})
	if err != nil {
		return err
	}
	errs := make(chan error)
	var mu sync.Mutex
	for writer := range 8 {
		go func() {
			for i := 0; ; i++ {
				id := caveat.SessionID{0: byte(writer + 1), 1: byte(i >> 8), 2: byte(i)}
				ok, err := b.Swap(context.Background(), discharger.Write{User: killUser, Revokes: writer == 0,
					Changes: []discharger.Change{{Session: id, New: fmt.Append(nil, id)}}})
				if err != nil || !ok {
					errs <- fmt.Errorf("swap: %v, %w", ok, err)
					return
				}
				mu.Lock()
				fmt.Println(id)
				mu.Unlock()
			}
		}()
	}
	return <-errs
}

// TestBoltKilled kills a process that is writing, several times over. Whatever
// was acknowledged is there.
func TestBoltKilled(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for round := range 5 {
		path := filepath.Join(t.TempDir(), "store.db")
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		var acknowledged []string
		for lines.Scan() {
			acknowledged = append(acknowledged, lines.Text())
			if len(acknowledged) == 50+137*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); err == nil || len(acknowledged) < 50 {
			t.Fatalf("the process ended by itself after %d writes", len(acknowledged))
		}
		b := openBolt(t, store.BoltConfig{Path: path})
		l, err := b.List(t.Context(), killUser)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range acknowledged {
			id, err := caveat.ParseSessionID(name)
			if err != nil { // the last line may be cut short
				continue
			}
			if string(l.Sessions[id]) != fmt.Sprint(id) {
				t.Errorf("round %d: acknowledged session %v is %q", round, id, l.Sessions[id])
			}
		}
		for id, record := range l.Sessions {
			if string(record) != fmt.Sprint(id) {
				t.Errorf("round %d: session %v is %q", round, id, record)
			}
		}
	}
}

func TestBoltMarkers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	wipe := func() {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	testMarkers(t, func(m store.Marker) (markedStore, error) {
		return store.OpenBolt(store.BoltConfig{Path: path, Marker: m})
	}, wipe, func() {
		wipe()
		if err := openBolt(t, store.BoltConfig{Path: path}).Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestBoltLocked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	b := openBolt(t, store.BoltConfig{Path: path})
	start := time.Now()
	_, err := store.OpenBolt(store.BoltConfig{Path: path, LockTimeout: 100 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "another process has the file open") || !strings.Contains(err.Error(), path) {
		t.Errorf("opened twice: %v", err)
	}
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("took %v to find out", d)
	}
	if err := b.Ready(t.Context()); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	openBolt(t, store.BoltConfig{Path: path})
}

// TestBoltFiles opens what is not a store and leaves it as it was.
func TestBoltFiles(t *testing.T) {
	t.Parallel()
	good := filepath.Join(t.TempDir(), "good.db")
	b := openBolt(t, store.BoltConfig{Path: good})
	for range 500 {
		if ok, err := b.Swap(t.Context(), one(someone(), discharger.Change{Session: newSession(), New: make([]byte, 100)})); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	change := func(f func([]byte)) []byte {
		b := bytes.Clone(whole)
		f(b)
		return b
	}
	for what, content := range map[string][]byte{
		"text":          []byte("homeservers:\n  - name: example.org\n"),
		"one byte":      {0},
		"zeros":         make([]byte, 4*page),
		"long text":     bytes.Repeat([]byte("no store at all\n"), page),
		"SQLite":        append([]byte("SQLite format 3\x00"), make([]byte, 4*page)...),
		"both metas":    change(func(b []byte) { b[30]++; b[page+30]++ }),
		"two pages":     whole[:2*page],
		"three pages":   whole[:3*page],
		"half":          whole[:len(whole)/2/page*page],
		"not a page":    whole[:len(whole)/3+7],
		"no freelist":   change(func(b []byte) { copy(b[2*page:], make([]byte, len(b)-2*page)) }),
		"other buckets": foreignBolt(t, func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("users")); return err }),
		"later version": foreignBolt(t, func(tx *bbolt.Tx) error {
			for _, name := range []string{"discharger", "records", "homeservers"} {
				if _, err := tx.CreateBucket([]byte(name)); err != nil {
					return err
				}
			}
			return tx.Bucket([]byte("discharger")).Put([]byte("id"), []byte("discharger-2:0123456789012345678901"))
		}),
		"no records": foreignBolt(t, func(tx *bbolt.Tx) error {
			m, err := tx.CreateBucket([]byte("discharger"))
			if err != nil {
				return err
			}
			return m.Put([]byte("id"), []byte("discharger-1:0123456789012345678901"))
		}),
	} {
		path := filepath.Join(t.TempDir(), "store.db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := store.OpenBolt(store.BoltConfig{Path: path})
		if err == nil {
			b.Close()
			t.Errorf("%s: opened", what)
		} else if !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error does not name the file: %v", what, err)
		}
		after, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(after, content) {
			t.Errorf("%s: the file was changed", what)
		}
	}
	for what, path := range map[string]string{
		"a directory":  t.TempDir(),
		"no directory": filepath.Join(t.TempDir(), "no", "store.db"),
		"no path":      "",
	} {
		if b, err := store.OpenBolt(store.BoltConfig{Path: path}); err == nil {
			b.Close()
			t.Errorf("%s: opened", what)
		}
	}
	for _, cfg := range []store.BoltConfig{{Path: good, SweepEvery: -1}, {Path: good, LockTimeout: -1}} {
		if b, err := store.OpenBolt(cfg); err == nil {
			b.Close()
			t.Errorf("opened with %+v", cfg)
		}
	}
	openBolt(t, store.BoltConfig{Path: good})
	info, err := os.Stat(good)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
}

// foreignBolt makes a bbolt file of another kind.
func foreignBolt(t testing.TB, fill func(*bbolt.Tx) error) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "foreign.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(fill), db.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBoltCutShort finds a file that another process created and did not get
// to fill.
func TestBoltCutShort(t *testing.T) {
	t.Parallel()
	for what, content := range map[string][]byte{
		"empty":      {},
		"no buckets": foreignBolt(t, func(*bbolt.Tx) error { return nil }),
	} {
		path := filepath.Join(t.TempDir(), "store.db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := store.OpenBolt(store.BoltConfig{Path: path})
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if err := errors.Join(b.Ready(t.Context()), b.Close()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestBoltLostIsNotSwept leaves a file alone that nobody has accepted.
func TestBoltLostIsNotSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := store.BoltConfig{Path: filepath.Join(t.TempDir(), "store.db"), SweepEvery: time.Hour}
		open := func() *store.Bolt {
			b, err := store.OpenBolt(cfg)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		b := open()
		u := someone()
		if ok, err := b.Swap(t.Context(), one(u, discharger.Change{New: []byte("a"), Expires: time.Now().Add(time.Minute)})); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		cfg.Marker = &memory{id: []byte("discharger-1:0123456789012345678901")}
		b = open()
		for _, want := range []int{1, 0} {
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			if got := b.Rows(t, u); got != want {
				t.Errorf("%d rows, want %d", got, want)
			}
			if err := b.AcceptLoss(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestBoltTaken notices that the file is no longer the one on the disk.
func TestBoltTaken(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	b := openBolt(t, store.BoltConfig{Path: path})
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := b.Ready(t.Context()); !errors.Is(err, discharger.ErrStoreLost) {
		t.Errorf("Ready without a file: %v", err)
	}
	openBolt(t, store.BoltConfig{Path: path})
	if err := b.Ready(t.Context()); !errors.Is(err, discharger.ErrStoreLost) {
		t.Errorf("Ready with another file: %v", err)
	}
	if err := os.Rename(path+".old", path); err != nil {
		t.Fatal(err)
	}
	if err := b.Ready(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestBoltDamagedRow damages rows of a good file. Whoever meets one gets an
// error; others are not concerned, and neither is the sweeper.
func TestBoltDamagedRow(t *testing.T) {
	t.Parallel()
	c := newClock()
	b := openBolt(t, store.BoltConfig{Path: filepath.Join(t.TempDir(), "store.db"), Now: c.now})
	f := &fixture{Store: b, clock: c}
	u, v, id := someone(), someone(), newSession()
	for _, w := range []discharger.UserKey{u, v} {
		f.swap(t, true, w, discharger.Change{Session: id, New: []byte("a"), Expires: c.in(time.Hour)})
	}
	b.PutRow(t, u, id, []byte("\x00\x00\x00\x01")) // an expiry and nothing else
	if got, err := b.Load(t.Context(), u, id); err == nil {
		t.Errorf("Load gives %v", got)
	}
	if got, err := b.List(t.Context(), u); err == nil {
		t.Errorf("List gives %v", got)
	}
	for _, c := range []discharger.Change{{Session: id, New: []byte("b")}, {Session: id, Old: []byte("a"), New: []byte("b")}, {Session: id}} {
		if ok, err := b.Swap(t.Context(), one(u, c)); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("Swap gives %v, %v", ok, err)
		}
	}
	f.expect(t, v, id, "a", "")
	c.advance(2 * time.Hour)
	if n, err := b.Sweep(t.Context()); n != 1 || err == nil {
		t.Errorf("Sweep removed %d, %v; want 1 and an error", n, err)
	}
	if b.Rows(t, u) != 1 || b.Rows(t, v) != 0 {
		t.Errorf("%d and %d rows are left, want 1 and 0", b.Rows(t, u), b.Rows(t, v))
	}
}

// TestBoltSweep removes what has expired and nothing else, in several steps.
func TestBoltSweep(t *testing.T) {
	t.Parallel()
	c := newClock()
	b := openBolt(t, store.BoltConfig{Path: filepath.Join(t.TempDir(), "store.db"), Now: c.now})
	f := &fixture{Store: b, clock: c}
	type kept struct {
		u    discharger.UserKey
		rows int
	}
	var users []kept
	var wg sync.WaitGroup
	for i := range 1200 { // more rows than one step looks at
		u := someone()
		w := discharger.Write{User: u, Changes: []discharger.Change{
			{New: []byte("user"), Expires: c.in(time.Hour)},
			{Session: newSession(), New: []byte("short"), Expires: c.in(time.Hour)},
		}}
		k := kept{u, 0}
		switch i % 4 {
		case 1: // a session of the user is left, so the user's record is
			w.Changes = append(w.Changes, discharger.Change{Session: newSession(), New: []byte("long"), Expires: c.in(100 * time.Hour)})
			k.rows = 2
		case 2: // the user's record never goes by itself
			w.Changes[0].Expires = time.Time{}
			k.rows = 1
		case 3: // there is no such record
			w.Changes = w.Changes[1:]
		}
		users = append(users, k)
		wg.Go(func() {
			if ok, err := b.Swap(t.Context(), w); !ok || err != nil {
				t.Error(ok, err)
			}
		})
	}
	wg.Wait()
	if n, err := b.Sweep(t.Context()); n != 0 || err != nil {
		t.Fatalf("swept %d rows before their time, %v", n, err)
	}
	c.advance(2 * time.Hour)
	if n, err := b.Sweep(t.Context()); n != 300*(2+1+1+1) || err != nil {
		t.Errorf("swept %d rows, %v", n, err)
	}
	for _, k := range users {
		if got := b.Rows(t, k.u); got != k.rows {
			t.Fatalf("%d rows are left, want %d", got, k.rows)
		}
		if l := f.list(t, k.u); (l.User != nil) != (k.rows > 0) {
			t.Fatalf("user's record is %q with %d rows", l.User, k.rows)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Sweep(ctx); err == nil {
		t.Error("a sweep does not end when it should")
	}
}

// TestBoltSweeper watches the goroutine do it, in its own time.
func TestBoltSweeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log logBuffer
		b, err := store.OpenBolt(store.BoltConfig{
			Path: filepath.Join(t.TempDir(), "store.db"), SweepEvery: time.Hour, Log: log.logger(),
		})
		if err != nil {
			t.Fatal(err)
		}
		u, id := someone(), newSession()
		if ok, err := b.Swap(t.Context(), one(u, discharger.Change{Session: id, New: []byte("a"), Expires: time.Now().Add(90 * time.Minute)})); !ok || err != nil {
			t.Fatal(ok, err)
		}
		for hours, want := range []int{1, 1, 0} {
			if got := b.Rows(t, u); got != want {
				t.Errorf("after %d hours there are %d rows, want %d", hours, got, want)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
		}
		b.PutRow(t, u, id, []byte("x"))
		if log.String() != "" {
			t.Errorf("log says %q", log.String())
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if !strings.Contains(log.String(), "expired records could not be removed") {
			t.Errorf("log says %q", log.String())
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestFileMarker(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "marker")
	m := store.FileMarker(path)
	if b, err := m.Load(); b != nil || err != nil {
		t.Errorf("before anything was saved: %q, %v", b, err)
	}
	for _, id := range []string{"one", "another, longer", "x"} {
		if err := m.Save([]byte(id)); err != nil {
			t.Fatal(err)
		}
		if b, err := m.Load(); string(b) != id || err != nil {
			t.Errorf("saved %q, loaded %q, %v", id, b, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); len(entries) != 1 || err != nil {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	for what, path := range map[string]string{"no directory": filepath.Join(path, "x"), "a directory": t.TempDir()} {
		m := store.FileMarker(path)
		if b, err := m.Load(); err == nil {
			t.Errorf("%s: loaded %q", what, b)
		}
		if err := m.Save([]byte("x")); err == nil {
			t.Errorf("%s: saved", what)
		}
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := m.Load(); err == nil {
		t.Errorf("an empty file gives %q", b)
	}
}
