package keyfile

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
)

var created = time.Date(2026, 1, 2, 15, 4, 5, 600, time.UTC)

func service(t testing.TB) *Ring {
	t.Helper()
	r, err := NewService(created)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func homeserverRing(t testing.TB) *Ring {
	t.Helper()
	peer := Peer{Name: "example.org", Service: "https://d.example.org", ServiceKey: service(t).Of(Discharger)[0].Public}
	r, err := NewHomeserver(peer, created)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func encoded(t testing.TB, r *Ring) []byte {
	t.Helper()
	b, err := encode(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, r := range []*Ring{service(t), homeserverRing(t)} {
		text := encoded(t, r)
		got, err := decode(text)
		if err != nil {
			t.Fatal(err)
		}
		if again := encoded(t, got); !bytes.Equal(again, text) {
			t.Errorf("became\n%s\nof\n%s", again, text)
		}
		if got.Peer != r.Peer || len(got.Keys) != len(r.Keys) {
			t.Errorf("got %+v of %+v", got, r)
		}
		for i := range r.Keys {
			if got.Keys[i] != r.Keys[i] {
				t.Errorf("got key %v of %v", got.Keys[i], r.Keys[i])
			}
		}
	}
}

// Ids are those by which the parts that use the keys call them.
func TestIDs(t *testing.T) {
	t.Parallel()
	r, h := service(t), homeserverRing(t)
	pair := r.Of(Discharger)[0]
	if err := pair.Pair().Validate(); err != nil || pair.ID != fmt.Sprintf("%x", pair.Public[:4]) {
		t.Errorf("discharger key %v, %v", pair, err)
	}
	refresh := r.Of(Refresh)[0]
	raw := refresh.Secret()
	if id := sha256.Sum256(append([]byte("discharger refresh key id\x00"), raw[:]...)); refresh.ID != fmt.Sprintf("%x", id[:4]) {
		t.Errorf("refresh key %v, want %x", refresh, id)
	}
	key := h.Of(API)[0]
	if key.APIDigest() != sha256.Sum256(key.APIKey()) || len(key.APIKey()) != 43 {
		t.Errorf("API key has %d characters, or another digest", len(key.APIKey()))
	}
}

func TestRing(t *testing.T) {
	t.Parallel()
	r := service(t)
	first := r.Of(Refresh)[0]
	if _, err := r.Retire(first.ID); err == nil || !strings.Contains(err.Error(), "the refresh key in use") {
		t.Errorf("retired the one in use: %v", err)
	}
	second, err := r.Add(Refresh, created.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if keys := r.Of(Refresh); len(keys) != 2 || keys[0] != second || keys[1] != first {
		t.Errorf("ring is %v", keys)
	}
	if got, err := r.Retire(first.ID); err != nil || got != first {
		t.Errorf("retired %v, %v", got, err)
	}
	if _, err := r.Retire(first.ID); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("retired twice: %v", err)
	}
	if keys := r.Of(Refresh); len(keys) != 1 || keys[0] != second {
		t.Errorf("ring is %v", keys)
	}
	file, err := encode(r)
	if err != nil {
		t.Fatal(err)
	}
	back, err := decode(file)
	if err != nil || len(back.RetiredOf(Refresh)) != 1 || hex.EncodeToString(back.Retired[0].ID[:]) != first.ID {
		t.Errorf("retired keys are %v, %v; want %s", back.Retired, err, first.ID)
	}
	if !bytes.Contains(file, []byte(`"version": 1`)) {
		t.Errorf("programs from before cannot read\n%s", file)
	}
	for _, bad := range []string{"", "91c0e0", "91C0E0B2", "91c0e0b2b2", "91c0e0bx"} {
		if _, err := decode(bytes.Replace(file, []byte(`"`+first.ID+`"`), []byte(`"`+bad+`"`), 1)); err == nil {
			t.Errorf("a retired key with the id %q", bad)
		}
	}
	for _, kind := range []Kind{Store, Seal, "x", ""} {
		if _, err := r.Add(kind, created); err == nil {
			t.Errorf("added a key of kind %q to a service's", kind)
		}
	}
}

// A key is staged, used, previous and retired, and a file has it as it is.
func TestStates(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		kind Kind
		ring func(testing.TB) *Ring
	}{{Discharger, service}, {Refresh, service}, {Seal, homeserverRing}, {Root, homeserverRing}, {API, homeserverRing}} {
		t.Run(string(tt.kind), func(t *testing.T) {
			t.Parallel()
			r := tt.ring(t)
			first := r.Of(tt.kind)[0]
			second, err := r.Stage(tt.kind, created.Add(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			r = reread(t, r, version2)
			if keys := r.Of(tt.kind); len(keys) != 2 || keys[0] != first || keys[1] != second || r.StateOf(second) != Staged ||
				!second.UsedSince().IsZero() {
				t.Fatalf("ring is %v, the new key %s since %v", keys, r.StateOf(second), second.UsedSince())
			}
			if second, err = r.Use(second.ID, created.Add(2*time.Hour)); err != nil {
				t.Fatal(err)
			}
			if again, err := r.Use(second.ID, created.Add(3*time.Hour)); err != nil || again != second {
				t.Errorf("used twice: %v, %v", again, err)
			}
			r = reread(t, r, version2)
			if keys := r.Of(tt.kind); len(keys) != 2 || keys[0] != second || r.StateOf(second) != Used || r.StateOf(first) != Previous ||
				!second.UsedSince().Equal(created.Add(2*time.Hour).Truncate(time.Second)) {
				t.Fatalf("ring is %v, the new key %s since %v", keys, r.StateOf(second), second.UsedSince())
			}
			if next, ok := r.Successor(first); !ok || next != second {
				t.Errorf("%v follows %v", next, first)
			}
			if _, err := r.Retire(second.ID); err == nil {
				t.Error("retired the one in use")
			}
			if _, err := r.Retire(first.ID); err != nil {
				t.Fatal(err)
			}
			r = reread(t, r, version2)
			if left := r.RetiredOf(tt.kind); len(left) != 1 || hex.EncodeToString(left[0].ID[:]) != first.ID || left[0].Public != first.Public {
				t.Errorf("retired keys are %v", left)
			}
			if _, err := r.Use(first.ID, created); !errors.Is(err, ErrUnknownKey) {
				t.Errorf("used a retired key: %v", err)
			}
		})
	}
}

// A previous key can be used again, and a staged one retired.
func TestStatesBack(t *testing.T) {
	t.Parallel()
	r := service(t)
	first := r.Of(Refresh)[0]
	second, err := r.Add(Refresh, created.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Use(first.ID, created.Add(2*time.Hour)); err != nil || r.StateOf(first) != Used || r.StateOf(second) != Previous {
		t.Errorf("used again: %s and %s, %v", r.StateOf(first), r.StateOf(second), err)
	}
	// The second key made things until then.
	r = reread(t, r, version2)
	if next, ok := r.Successor(second); !ok || next.ID != first.ID || !next.UsedSince().Equal(created.Add(2*time.Hour).Truncate(time.Second)) {
		t.Errorf("%s follows, used since %v", next.ID, next.UsedSince())
	}
	third, err := r.Stage(Refresh, created.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Successor(third); ok {
		t.Error("a staged key has a successor")
	}
	if _, err := r.Retire(third.ID); err != nil || len(r.Of(Refresh)) != 2 {
		t.Errorf("retired a staged key: %v, %v", r.Of(Refresh), err)
	}
}

// reread encodes and decodes a ring.
func reread(t *testing.T, r *Ring, version int) *Ring {
	t.Helper()
	text := encoded(t, r)
	if !bytes.Contains(text, fmt.Appendf(nil, `"version": %d`, version)) {
		t.Errorf("is not of version %d:\n%s", version, text)
	}
	again, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	return again
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	one, two := string(encoded(t, service(t))), service(t)
	two.Keys = slices.Clip(two.Keys)
	hs := string(encoded(t, homeserverRing(t)))
	swap := func(text, old, replacement string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("%q is not in the file", old)
		}
		return strings.Replace(text, old, replacement, 1)
	}
	var doc document
	if err := json.Unmarshal([]byte(one), &doc); err != nil {
		t.Fatal(err)
	}
	secret := doc.Keys[0].Secret
	twice := *two
	twice.Keys = append(twice.Keys, twice.Keys[0])
	stores := *two
	stores.Keys = append(stores.Keys, service(t).Of(Store)[0])
	foreign := *two
	foreign.Keys = append(foreign.Keys, homeserverRing(t).Of(Root)[0])
	none := Ring{Owner: Service}
	for name, tt := range map[string]struct{ text, want string }{
		"empty":             {"", "not JSON"},
		"not JSON":          {"keys", "not JSON"},
		"not an object":     {"[]", "not a key file"},
		"no version":        {"{}", "version 0"},
		"newer":             {swap(one, `"version": 1`, `"version": 3`), "version 3"},
		"cut":               {one[:len(one)/2], "not JSON"},
		"more after it":     {one + "{}", "not JSON"},
		"unknown member":    {swap(one, `"version"`, `"x": 1, "version"`), "is not a key file: wrong at \"/x\""},
		"member twice":      {swap(one, `"version"`, `"owner": "service", "version"`), "has a member twice"},
		"other case":        {swap(one, `"version"`, `"Version"`), "not a key file"},
		"no owner":          {swap(one, `"owner": "service"`, `"owner": ""`), "unknown owner"},
		"other owner":       {swap(one, `"owner": "service"`, `"owner": "homeserver"`), "member homeserver is only for owner"},
		"homeserver beside": {swap(hs, `"owner": "homeserver"`, `"owner": "service"`), "member homeserver is only for owner"},
		"no name":           {swap(hs, `"name": "example.org"`, `"name": ""`), "name of the homeserver"},
		"no URL":            {swap(hs, `"https://d.example.org"`, `"d.example.org"`), "service is not"},
		"kind":              {swap(one, `"kind": "refresh"`, `"kind": "x"`), "unknown kind"},
		"other kind":        {swap(one, `"kind": "refresh"`, `"kind": "store"`), "id does not match the secret"},
		"other id":          {swap(one, firstID(one), "00000000"), "id does not match the secret"},
		"not base64":        {swap(one, secret, "!!"), "not 32 bytes"},
		"short secret":      {swap(one, secret, "AAAA"), "not 32 bytes"},
		"zero secret":       {swap(one, secret, strings.Repeat("A", 43)), "all zeros"},
		"other public":      {swap(one, `"public": "`, `"public": "A`), "public does not match the secret"},
		"no time":           {swap(one, `"created": "2026`, `"created": "x`), "wrong at \"/keys/0/created\""},
		"key twice":         {string(encoded(t, &twice)), "duplicate key"},
		"two store keys":    {string(encoded(t, &stores)), "more than one key of kind store"},
		"foreign kind":      {string(encoded(t, &foreign)), "which a service does not have"},
		"staged only":       {swap(one, `"created"`, `"staged": true, "created"`), "every key of kind store is staged"},
		"staged and used":   {swap(one, `"created"`, `"staged": true, "since": "2026-01-02T15:04:05Z", "created"`), "is staged and has been used"},
		"retired elsewhere": {swap(one, `"keys"`, `"retired": [{"kind": "seal", "id": "01020304"}], "keys"`), "of which a service retires none"},
		"retired store":     {swap(one, `"keys"`, `"retired": [{"kind": "store", "id": "01020304"}], "keys"`), "of which a service retires none"},
		"retired alone":     {swap(one, `"keys"`, `"retired": [{"kind": "discharger", "id": "01020304"}], "keys"`), "public key that does not match"},
		"no keys":           {string(encoded(t, &none)), "no key of kind discharger"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := decode([]byte(tt.text))
			if err == nil || r != nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, %v; want %s", r, err, tt.want)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("repeats a secret: %v", err)
			}
		})
	}
}

// firstID finds the id of the first key in a file.
func firstID(text string) string {
	_, after, _ := strings.Cut(text, `"id": "`)
	id, _, _ := strings.Cut(after, `"`)
	return id
}

func TestSecretsDoNotShow(t *testing.T) {
	t.Parallel()
	for _, r := range []*Ring{service(t), homeserverRing(t)} {
		var doc document
		if err := json.Unmarshal(encoded(t, r), &doc); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "ring", r, "key", r.Keys[0])
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "ring", r, "key", r.Keys[0])
		marshalled, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		shown := fmt.Sprintf("%v %+v %#v %s %x %d", r, r, r, r, r, r.Keys) + log.String() + string(marshalled)
		for i, k := range r.Keys {
			raw := [32]byte(k.Secret())
			for _, secret := range []string{doc.Keys[i].Secret, string(k.APIKey()), fmt.Sprintf("%x", raw), fmt.Sprint(raw[:4])[1:8]} {
				if strings.Contains(shown, secret) {
					t.Errorf("%v shows its secret in %s", k, shown)
				}
			}
		}
	}
}

func TestFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.json")
	if _, err := Load(path, OwnerOnly); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if err := Create(path, service(t)); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := Create(path, service(t)); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created twice: %v", err)
	}
	refused := errors.New("no")
	if err := Update(path, OwnerOnly, func(*Ring) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("update: %v", err)
	}
	if err := Update(path, OwnerOnly, func(r *Ring) error { r.Keys = nil; return nil }); err == nil {
		t.Error("wrote a ring without keys")
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the file changed, %v", err)
	}
	if err := Update(path, OwnerOnly, func(r *Ring) error {
		_, err := r.Add(Refresh, created)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if r, err := Load(path, OwnerOnly); err != nil || len(r.Of(Refresh)) != 2 {
		t.Errorf("got %v, %v", r, err)
	}
}

func TestModes(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := Create(path, service(t)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		mode         fs.FileMode
		owner, group bool // whether Load takes it
	}{
		{0o600, true, true}, {0o400, true, true}, {0o640, false, true}, {0o440, false, true},
		{0o660, false, true}, {0o661, false, false}, {0o662, false, false}, {0o664, false, false}, {0o770, false, false}, {0o644, false, false}, {0o604, false, false}, {0o602, false, false}, {0o444, false, false},
	} {
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		for a, want := range map[Access]bool{OwnerOnly: tt.owner, GroupToo: tt.group} {
			_, err := Load(path, a)
			if (err == nil) != want || err != nil && !errors.Is(err, ErrExposed) {
				t.Errorf("mode %04o, group too %t: %v", tt.mode, a, err)
			}
		}
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := Update(path, GroupToo, func(r *Ring) error { _, err := r.Add(Refresh, created); return err }); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode became %v, %v", info.Mode(), err)
	}
}

// Updates and creations at the same time lose nothing.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.json")
	const n = 16
	rings := make([]*Ring, n)
	for i := range rings {
		rings[i] = service(t)
	}
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = Create(path, rings[i]) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, fs.ErrExist):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Fatalf("%d created the file", won)
	}
	for i := range n {
		wg.Go(func() {
			errs[i] = Update(path, OwnerOnly, func(r *Ring) error { _, err := r.Add(Refresh, created); return err })
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if r, err := Load(path, OwnerOnly); err != nil || len(r.Of(Refresh)) != n+1 {
		t.Errorf("%d keys, want %d, %v", len(r.Of(Refresh)), n+1, err)
	}
}

// A decoded ring encodes and decodes to the same ring; an error comes without a ring.
func FuzzDecode(f *testing.F) {
	f.Add(encoded(f, service(f)))
	f.Add(encoded(f, homeserverRing(f)))
	f.Add([]byte(`{"note":"","version":1,"owner":"service","keys":[{}]}`))
	rotated := homeserverRing(f)
	for _, kind := range []Kind{Seal, Root} {
		old := rotated.Of(kind)[0]
		k, err := rotated.Stage(kind, created)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encoded(f, rotated))
		if _, err := rotated.Use(k.ID, created.Add(time.Hour)); err != nil {
			f.Fatal(err)
		}
		if _, err := rotated.Retire(old.ID); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(encoded(f, rotated))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decode(data)
		if err != nil {
			if r != nil {
				t.Fatal("an error and a ring")
			}
			return
		}
		text := encoded(t, r)
		again, err := decode(text)
		if err != nil {
			t.Fatalf("does not decode again: %v\n%s", err, text)
		}
		if !bytes.Equal(encoded(t, again), text) {
			t.Fatal("changes when it is decoded again")
		}
		for _, k := range r.Keys {
			if k.Kind == Discharger && caveat.CheckPublicKey(k.Public) != nil {
				t.Fatal("weak key")
			}
		}
	})
}

// A pipe is read if it has a writer, and never waits for one.
func TestPipe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, OwnerOnly); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("without a writer: %v", err)
	}
	text := encoded(t, service(t))
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	go func() {
		defer writer.Close()
		_, _ = writer.Write(text)
	}()
	if _, err := Load(fmt.Sprintf("/dev/fd/%d", reader.Fd()), OwnerOnly); err != nil {
		t.Errorf("with a writer: %v", err)
	}
}
