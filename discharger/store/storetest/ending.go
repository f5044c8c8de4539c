package storetest

import (
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store"
)

// Live returns the record of a live session.
func Live(t testing.TB, generation uint64) []byte {
	t.Helper()
	r := session.Record{Mode: caveat.ModeOpen, Created: 1_700_000_000_000, LastUsed: 1_700_000_000_000, UserGeneration: generation, Device: "D"}
	return Marshal(t, &r)
}

// Tombstone returns the record that a live record becomes.
func Tombstone(t testing.TB) []byte {
	t.Helper()
	return Marshal(t, &session.Record{Device: "D", End: revocation.End{Soft: true, Cause: revocation.CauseRevoked, At: 1_700_000_100_000}})
}

// Bare returns the record that a replay creates for a tombstone without a
// record.
func Bare(t testing.TB) []byte {
	t.Helper()
	var r session.Record
	if err := r.UnmarshalBinary(Tombstone(t)); err != nil {
		t.Fatal(err)
	}
	r.Device = ""
	return Marshal(t, &r)
}

// Marshal encodes a record.
func Marshal(t testing.TB, v interface{ MarshalBinary() ([]byte, error) }) []byte {
	t.Helper()
	b, err := v.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A LogBuffer takes a log that several goroutines write.
type LogBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

// Write implements io.Writer.
func (l *LogBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns the log.
func (l *LogBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Logger returns a logger that writes to the buffer.
func (l *LogBuffer) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// Ending returns the journal's entry of a session that becomes the tombstone.
func Ending(t testing.TB, u store.UserKey, id caveat.SessionID) []revocation.Revocation {
	t.Helper()
	var r session.Record
	if err := r.UnmarshalBinary(Tombstone(t)); err != nil {
		t.Fatal(err)
	}
	return []revocation.Revocation{{
		Kind: revocation.KindSession, Homeserver: u.Homeserver, User: u.User, Session: id,
		At: r.End.At, Soft: r.End.Soft, Cause: r.End.Cause, Code: r.End.Code,
	}}
}
