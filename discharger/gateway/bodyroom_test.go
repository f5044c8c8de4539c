package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/discharger/discharger/discharger/gateway/token"
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
		{"small", 0, strings.NewReader(strings.Repeat("x", smallBody-1)), smallBody - 1, nil},
		{"byte by byte", 0, iotest.OneByteReader(strings.NewReader(strings.Repeat("x", 1000))), 1000, nil},
		{"large, no room", 0, strings.NewReader(strings.Repeat("x", smallBody+1)), 0, errNoRoom},
		{"large", maxBody, strings.NewReader(strings.Repeat("x", maxBody)), maxBody, nil},
		{"too large", maxBody, strings.NewReader(strings.Repeat("x", maxBody+1)), 0, errTooLarge},
		{"broken", maxBody, io.MultiReader(strings.NewReader(strings.Repeat("x", smallBody+1)), iotest.ErrReader(fault)), 0, fault},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b, h := newBodyRoom(c.room), heldBody{}
			data, err := b.read(c.body, &h)
			if len(data) != c.size || !errors.Is(err, c.err) {
				t.Errorf("%d bytes, %v", len(data), err)
			}
			if b.used > c.room || b.used < c.size-smallBody || h.size != b.used {
				t.Errorf("%d bytes are counted, %d for this body", b.used, h.size)
			}
			if h.release(); b.used != 0 {
				t.Errorf("%d bytes are left", b.used)
			}
		})
	}
}

// Large bodies that do not arrive take no more memory than there is room for, and
// others log in meanwhile.
func TestLargeBodiesDoNotArrive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.gateway.bodies = newBodyRoom(2 * maxBody)
	refresh := w.login(true).text("refresh_token")
	const attackers = 8
	var senders []*io.PipeWriter
	ended := make(chan int, attackers)
	for range attackers {
		in, out := io.Pipe()
		req, err := http.NewRequest("POST", w.http.URL+pathLogin, in)
		must(t, err)
		senders = append(senders, out)
		go func() {
			_, _ = io.WriteString(out, `{"type":"`+strings.Repeat("x", maxBody-1000))
		}()
		go func() {
			resp, err := w.pipes.transport().RoundTrip(req)
			if err != nil {
				ended <- 0
				return
			}
			resp.Body.Close()
			ended <- resp.StatusCode
		}()
	}
	for range attackers - 2 {
		if status := <-ended; status != http.StatusTooManyRequests && status != 0 {
			t.Errorf("status %d", status)
		}
	}
	w.gateway.bodies.mu.Lock()
	used := w.gateway.bodies.used
	w.gateway.bodies.mu.Unlock()
	if used > 2*maxBody {
		t.Errorf("%d bytes are counted", used)
	}
	w.login(false)
	w.want(w.refresh(refresh), 200, "")
	large := anyMap{"refresh_token": token.PrefixRefresh + strings.Repeat("x", maxBody/2)}
	if a := w.do("POST", pathRefresh, "", large); a.status != 503 && a.status != 401 || a.status == 503 && a.body != nil {
		t.Errorf("%d %s", a.status, a.raw)
	}
	for _, s := range senders {
		_ = s.CloseWithError(io.ErrUnexpectedEOF)
	}
	eventually(t, "the room is empty", func() bool {
		w.gateway.bodies.mu.Lock()
		defer w.gateway.bodies.mu.Unlock()
		return w.gateway.bodies.used == 0
	})
	w.want(w.do("POST", pathRefresh, "", large), 401, codeUnknownToken)
}

// Answers that are looked at for a token narrowed to a room share that room.
func TestNarrowedAnswersAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	narrow, err := token.Attenuate(w.login(false).text("access_token"), "room !r:hs")
	must(t, err)
	w.hs.set(func(s *stub) {
		s.rooms = anyMap{"event_id": "$x", "room_id": "!r:hs", "content": anyMap{"body": strings.Repeat("x", 2*smallBody)}}
	})
	const path = "/_matrix/client/v3/rooms/!r:hs/event/$x"
	w.want(w.do("GET", path, narrow, nil), 200, "")
	w.gateway.bodies.mu.Lock()
	w.gateway.bodies.max = smallBody
	w.gateway.bodies.mu.Unlock()
	w.want(w.do("GET", path, narrow, nil), 429, codeLimitExceeded)
}

// No more large bodies are parsed at a time than there are turns; small ones need
// none.
func TestParsingInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBodyRoom(0)
		var parsing, most atomic.Int32
		release := make(chan struct{})
		for range 3 * maxParsed {
			go b.parse(make([]byte, smallBody+1), func([]byte) {
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
		b.parse(make([]byte, smallBody), func([]byte) {})
		close(release)
		synctest.Wait()
		if parsing.Load() != 0 || most.Load() != maxParsed || len(b.turns) != 0 {
			t.Errorf("%d, %d at most, %d turns are taken", parsing.Load(), most.Load(), len(b.turns))
		}
	})
}

func TestObjectsAreBounded(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]error{maxMembers: nil, maxMembers + 1: errNotJSON} {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, ",\"%d\":0", i)
		}
		if o, err := parseObject([]byte("{" + b.String()[1:] + "}")); !errors.Is(err, want) || want == nil && len(o) != n {
			t.Errorf("%d members: %d, %v", n, len(o), err)
		}
	}
}
