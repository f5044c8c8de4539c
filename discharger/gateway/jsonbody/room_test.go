package jsonbody

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
)

func TestBodyRoom(t *testing.T) {
	t.Parallel()
	fault := errors.New("fault")
	for _, c := range []struct {
		name string
		room int
		body io.Reader
		size int
		err  error
	}{
		{"empty", 0, strings.NewReader(""), 0, nil},
		{"small", 0, strings.NewReader(strings.Repeat("x", SmallSize-1)), SmallSize - 1, nil},
		{"byte by byte", 0, iotest.OneByteReader(strings.NewReader(strings.Repeat("x", 1000))), 1000, nil},
		{"large, no room", 0, strings.NewReader(strings.Repeat("x", SmallSize+1)), 0, ErrNoRoom},
		{"large", MaxSize, strings.NewReader(strings.Repeat("x", MaxSize)), MaxSize, nil},
		{"too large", MaxSize, strings.NewReader(strings.Repeat("x", MaxSize+1)), 0, ErrTooLarge},
		{"broken", MaxSize, io.MultiReader(strings.NewReader(strings.Repeat("x", SmallSize+1)), iotest.ErrReader(fault)), 0, fault},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b, h := NewRoom(c.room), Share{}
			data, err := b.Read(c.body, &h)
			if len(data) != c.size || !errors.Is(err, c.err) {
				t.Errorf("%d bytes, %v", len(data), err)
			}
			if b.used > c.room || b.used < c.size-SmallSize || h.size != b.used {
				t.Errorf("%d bytes are counted, %d for this body", b.used, h.size)
			}
			if h.Release(); b.used != 0 {
				t.Errorf("%d bytes are left", b.used)
			}
		})
	}
}

// At most maxParsed large bodies are parsed at a time. Small bodies need no turn.
func TestParsingInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := NewRoom(0)
		var parsing, most atomic.Int32
		release := make(chan struct{})
		for range 3 * maxParsed {
			go b.InTurn(make([]byte, SmallSize+1), func([]byte) {
				if n := parsing.Add(1); n > most.Load() {
					most.Store(n)
				}
				<-release
				parsing.Add(-1)
			})
		}
		synctest.Wait()
		if n := parsing.Load(); n != maxParsed {
			t.Errorf("%d are parsed at a time", n)
		}
		b.InTurn(make([]byte, SmallSize), func([]byte) {})
		close(release)
		synctest.Wait()
		if parsing.Load() != 0 || most.Load() != maxParsed || len(b.turns) != 0 {
			t.Errorf("%d, %d at most, %d turns are taken", parsing.Load(), most.Load(), len(b.turns))
		}
	})
}

func TestObjectsAreBounded(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]error{maxMembers: nil, maxMembers + 1: ErrNotJSON} {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, ",\"%d\":0", i)
		}
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			if o, err := Parse([]byte("{" + b.String()[1:] + "}")); !errors.Is(err, want) || want == nil && len(o) != n {
				t.Errorf("%d members, %v", len(o), err)
			}
		})
	}
}
