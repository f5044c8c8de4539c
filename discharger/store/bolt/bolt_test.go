package bolt_test

import (
	"bufio"
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

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/failover"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/bolt"
	"github.com/discharger/discharger/discharger/store/journal"
	"github.com/discharger/discharger/discharger/store/marker"
	"github.com/discharger/discharger/discharger/store/redis/conn"
	"github.com/discharger/discharger/discharger/store/storetest"
)

// childEnv makes this binary a process that writes until it is killed.
const childEnv = "STORE_TEST_WRITE_TO"

func TestMain(m *testing.M) {
	conn.SetLog(nil)
	if path := os.Getenv(childEnv); path != "" {
		if err := writeUntilKilled(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if dir := os.Getenv(fullEnv); dir != "" {
		if err := fillDisk(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// openBolt waits long for the lock: a process that this one is just starting
// has it too, for a moment.
func openBolt(t testing.TB, cfg bolt.Config) *bolt.Store {
	t.Helper()
	cfg.LockTimeout = time.Minute
	b, err := bolt.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// TestLoadLosses has a loss accepted during a Load. If the store was lost when the Load
// began, its records are those of the accepted store, and must come with its losses.
func TestLoadLosses(t *testing.T) {
	t.Parallel()
	var b *bolt.Store
	want := store.Losses{Missing: 1, All: 2}
	now := func() time.Time {
		if b != nil {
			b.SetLosses(want)
		}
		return time.Now()
	}
	b = openBolt(t, bolt.Config{Path: filepath.Join(t.TempDir(), "store.db"), SweepEvery: time.Hour}.WithClock(now))
	v, err := b.Load(t.Context(), storetest.NewUser(), storetest.NewSession(), revocation.DeviceTag{})
	if err != nil || v.Losses != want {
		t.Errorf("losses are %+v, %v, want %+v", v.Losses, err, want)
	}
}

// killUser is whose sessions the process that gets killed writes.
var killUser = store.UserKey{Homeserver: "example.org", User: "@alice:example.org"}

// killed returns the revocation that one of the writers claims to make.
func killed(writer int, id caveat.SessionID) []revocation.Revocation {
	if writer > 0 {
		return nil
	}
	return []revocation.Revocation{{
		Kind: revocation.KindSession, Homeserver: killUser.Homeserver, User: killUser.User, Session: id, At: 1_700_000_100_000,
		Cause: revocation.CauseRevoked,
	}}
}

// writeUntilKilled has several goroutines write sessions, by both ways, and
// says of each when it was acknowledged.
func writeUntilKilled(path string) error {
	j, err := journal.Open(journal.Config{Path: path + ".journal"})
	if err != nil {
		return err
	}
	b, err := bolt.Open(bolt.Config{Path: path, Journal: j, Replayer: failover.New(revocation.Lifetime{}, nil)})
	if err != nil {
		return err
	}
	errs := make(chan error)
	var mu sync.Mutex
	for writer := range 8 {
		go func() {
			for i := 0; ; i++ {
				id := caveat.SessionID{0: byte(writer + 1), 1: byte(i >> 8), 2: byte(i)}
				ok, err := b.Swap(context.Background(), store.Write{User: killUser, Revocations: killed(writer, id),
					Changes: []store.Change{{Session: id, New: fmt.Append(nil, id)}}})
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

// TestBoltKilled kills a writing process several times. Every acknowledged
// write is there afterwards.
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
		b := openBolt(t, bolt.Config{Path: path})
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
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		expectKilledJournal(t, path, acknowledged)
	}
}

// expectKilledJournal expects the acknowledged entries of the first writer.
func expectKilledJournal(t *testing.T, path string, acknowledged []string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	b := openBolt(t, bolt.Config{Path: path, Replayer: failover.New(revocation.Lifetime{}, nil), Journal: storetest.OpenJournal(t, journal.Config{Path: path + ".journal"})})
	defer b.Close()
	if err := b.AcceptLoss(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := b.List(t.Context(), killUser)
	if err != nil {
		t.Fatal(err)
	}
	revoked := 0
	for _, name := range acknowledged {
		id, err := caveat.ParseSessionID(name)
		if err != nil || id[0] != 1 {
			continue
		}
		revoked++
		var r session.Record
		if err := r.UnmarshalBinary(l.Sessions[id]); err != nil || !r.Over() {
			t.Errorf("acknowledged revocation of %v is not in the journal: %+v, %v", id, r, err)
		}
	}
	if revoked == 0 {
		t.Error("nothing was revoked")
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
	storetest.Markers(t, func(m marker.Marker) (storetest.MarkedStore, error) {
		return bolt.Open(bolt.Config{Path: path, Marker: m, LockTimeout: time.Minute})
	}, wipe, func() {
		wipe()
		if err := openBolt(t, bolt.Config{Path: path}).Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestBoltLostIsNotSwept sweeps nothing from a file whose loss is not accepted.
func TestBoltLostIsNotSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := bolt.Config{Path: filepath.Join(t.TempDir(), "store.db"), SweepEvery: time.Hour}
		open := func() *bolt.Store {
			b, err := bolt.Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		b := open()
		u := storetest.NewUser()
		if ok, err := b.Swap(t.Context(), storetest.One(u, store.Change{New: []byte("a"), Expires: time.Now().Add(time.Minute)})); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		cfg.Marker = &storetest.Memory{Id: []byte("discharger-1:0123456789012345678901")}
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

// TestBoltSweep removes expired records and nothing else, in several steps.
func TestBoltSweep(t *testing.T) {
	t.Parallel()
	c := storetest.NewClock()
	b := openBolt(t, bolt.Config{Path: filepath.Join(t.TempDir(), "store.db")}.WithClock(c.Now))
	f := &storetest.Fixture{Store: b, Clock: c}
	type kept struct {
		u    store.UserKey
		rows int
	}
	var users []kept
	var wg sync.WaitGroup
	for i := range 1200 { // more rows than one step looks at
		u := storetest.NewUser()
		w := store.Write{User: u, Changes: []store.Change{
			{New: []byte("user"), Expires: c.In(time.Hour)},
			{Session: storetest.NewSession(), New: []byte("short"), Expires: c.In(time.Hour)},
			{Device: revocation.TagOf("D"), New: []byte("device"), Expires: c.In(time.Hour)},
		}}
		k := kept{u, 0}
		switch i % 4 {
		case 1: // a session of the user is left, so the user's record and the device's are
			w.Changes = append(w.Changes, store.Change{Session: storetest.NewSession(), New: []byte("long"), Expires: c.In(100 * time.Hour)})
			k.rows = 3
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
	c.Advance(2 * time.Hour)
	if n, err := b.Sweep(t.Context()); n != 300*(3+1+2+2) || err != nil {
		t.Errorf("swept %d rows, %v", n, err)
	}
	for _, k := range users {
		if got := b.Rows(t, k.u); got != k.rows {
			t.Fatalf("%d rows are left, want %d", got, k.rows)
		}
		if l := f.MustList(t, k.u); (l.User != nil) != (k.rows > 0) {
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
		var log storetest.LogBuffer
		b, err := bolt.Open(bolt.Config{
			Path: filepath.Join(t.TempDir(), "store.db"), SweepEvery: time.Hour, Log: log.Logger(),
		})
		if err != nil {
			t.Fatal(err)
		}
		u, id := storetest.NewUser(), storetest.NewSession()
		if ok, err := b.Swap(t.Context(), storetest.One(u, store.Change{Session: id, New: []byte("a"), Expires: time.Now().Add(90 * time.Minute)})); !ok || err != nil {
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
			t.Errorf("log is %q", log.String())
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if !strings.Contains(log.String(), "expired records could not be removed") {
			t.Errorf("log is %q", log.String())
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
