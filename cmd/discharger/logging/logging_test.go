package logging

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/config"
)

// writes notes every write by itself.
type writes struct {
	mu  sync.Mutex
	all []string
	err error
}

func (w *writes) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, string(b))
	return len(b), w.err
}

func (w *writes) taken() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.all
	w.all = nil
	return all
}

// TestLogs gathers lines of access, keeps all lines in order, and lets none of
// the others wait.
func TestLogs(t *testing.T) {
	t.Parallel()
	for _, format := range []config.LogFormat{config.LogText, config.LogJSON} {
		synctest.Test(t, func(t *testing.T) {
			w := new(writes)
			l := New(w, format, slog.LevelInfo)
			l.Access.Info("one")
			l.Access.Info("two")
			if got := w.taken(); len(got) != 0 {
				t.Errorf("written at once: %q", got)
			}
			time.Sleep(2 * gatherFor)
			synctest.Wait()
			if got := w.taken(); len(got) != 1 || strings.Count(got[0], "\n") != 2 {
				t.Errorf("after a moment: %q", got)
			}
			l.Access.Info("three")
			l.Main.With("a", 1).WithGroup("g").Warn("four", "b", 2)
			if got := strings.Join(w.taken(), ""); !inOrder(got, "three", "four") {
				t.Errorf("a warning: %q", got)
			}
			l.Access.Info("five")
			l.out.flush()
			l.out.flush()
			if got := w.taken(); len(got) != 1 {
				t.Errorf("at the end: %q", got)
			}
		})
	}
}

func inOrder(text, first, second string) bool {
	i, j := strings.Index(text, first), strings.Index(text, second)
	return i >= 0 && j > i
}

// TestGathererIsBounded checks that a full buffer is written before its time, and that
// an error does not stop the log.
func TestGathererIsBounded(t *testing.T) {
	t.Parallel()
	w := &writes{err: errors.New("disk full")}
	out := &gatherer{w: w, timer: time.AfterFunc(time.Hour, func() {})}
	line := bytes.Repeat([]byte("x"), 1000)
	var err error
	for range gatherSize/1000 + 1 {
		if _, e := out.Write(line); e != nil {
			err = e
		}
	}
	if got := w.taken(); len(got) != 1 || err == nil {
		t.Errorf("%d writes, error %v", len(got), err)
	}
	if out.buf == nil || len(out.buf) >= gatherSize {
		t.Errorf("%d bytes are kept", len(out.buf))
	}
}
