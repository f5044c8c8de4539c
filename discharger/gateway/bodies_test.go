package gateway

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/gateway/jsonbody"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/testkit"
)

// Large bodies that do not arrive are bounded in memory, and other clients log in
// meanwhile.
func TestStalledBodiesAreBounded(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		w.gateway.bodies = jsonbody.NewRoom(2 * jsonbody.MaxSize)
		refresh := w.login(true).text("refresh_token")
		const attackers = 8
		var senders []*io.PipeWriter
		ended := make(chan int, attackers)
		for range attackers {
			in, out := io.Pipe()
			req, err := http.NewRequest("POST", w.http.URL+pathLogin, in)
			testkit.NoError(t, err)
			senders = append(senders, out)
			go func() {
				_, _ = io.WriteString(out, `{"type":"`+strings.Repeat("x", jsonbody.MaxSize-1000))
			}()
			go func() {
				resp, err := w.pipes.Transport().RoundTrip(req)
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
		if used := w.gateway.bodies.InUse(); used > 2*jsonbody.MaxSize {
			t.Errorf("%d bytes are counted", used)
		}
		w.login(false)
		w.want(w.refresh(refresh), 200, "")
		large := anyMap{"refresh_token": token.PrefixRefresh + strings.Repeat("x", jsonbody.MaxSize/2)}
		if a := w.do("POST", pathRefresh, "", large); a.status != 503 && a.status != 401 || a.status == 503 && a.body != nil {
			t.Errorf("%d %s", a.status, a.raw)
		}
		for _, s := range senders {
			_ = s.CloseWithError(io.ErrUnexpectedEOF)
		}
		testkit.Eventually(t, "no body is buffered", func() bool {
			return w.gateway.bodies.InUse() == 0
		})
		w.want(w.do("POST", pathRefresh, "", large), 401, matrix.CodeUnknownToken)
	})
}

// Responses checked for tokens narrowed to a room share that memory.
func TestNarrowedAnswersAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	narrow, err := token.Attenuate(w.login(false).text("access_token"), "room !r:hs")
	testkit.NoError(t, err)
	w.hs.set(func(s *stub) {
		s.rooms = anyMap{"event_id": "$x", "room_id": "!r:hs", "content": anyMap{"body": strings.Repeat("x", 2*jsonbody.SmallSize)}}
	})
	const path = "/_matrix/client/v3/rooms/!r:hs/event/$x"
	w.want(w.do("GET", path, narrow, nil), 200, "")
	w.gateway.bodies = jsonbody.NewRoom(jsonbody.SmallSize)
	w.want(w.do("GET", path, narrow, nil), 429, matrix.CodeLimitExceeded)
}
