package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/sse"
	"github.com/discharger/discharger/discharger/wire"
)

func milli(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

var (
	ended  = revocation.Event{Session: caveat.SessionID{1}, At: milli(1000), Until: milli(2000), Reason: revocation.CauseLogout}
	users  = revocation.Event{User: "@a:x", Before: milli(1001), At: milli(1000), Until: milli(2000), Reason: revocation.CauseRevoked}
	butOne = revocation.Event{User: "@\"\n\u2028:x", Except: caveat.SessionID{2}, Before: milli(1), At: milli(1), Until: milli(2), Reason: "later"}
	all    = revocation.Event{All: true, Before: milli(1001), At: milli(1000), Until: milli(2000), Reason: revocation.CausePolicy}

	replaced = revocation.Event{Session: caveat.SessionID{1}, User: "u", Device: "d", Soft: true, At: milli(1000), Until: milli(2000), Reason: revocation.CauseReplaced}
	noName   = revocation.Event{Session: caveat.SessionID{1}, Device: "d", At: milli(1000), Until: milli(2000), Reason: revocation.CauseExpired}
	device   = revocation.Event{User: "u", Device: "d", Except: caveat.SessionID{2}, Before: milli(1001), At: milli(1000), Until: milli(2000), Soft: true, Reason: revocation.CauseRevoked}
	devices  = revocation.Event{User: "u", Devices: true, Before: milli(1001), At: milli(1000), Until: milli(2000), Reason: revocation.CauseRevoked}

	revocations = []revocation.Event{ended, users, butOne, all, replaced, noName, device, devices}
)

// collect reads a stream to its end.
func collect(stream string) (out []FeedEvent, err error) {
	err = readEvents(strings.NewReader(stream), func(e FeedEvent) error {
		out = append(out, e)
		return nil
	})
	return out, err
}

func line(t testing.TB, r revocation.Event) string {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestReadEvents(t *testing.T) {
	t.Parallel()
	event := "event: revocation\nid: p1\ndata: " + line(t, ended) + "\n\n"
	read := FeedEvent{Kind: FeedRevocation, Position: "p1", Revocation: ended}
	for name, c := range map[string]struct {
		stream string
		want   []FeedEvent
		wrong  bool // and not merely over
	}{
		"nothing":           {"", nil, false},
		"one":               {event, []FeedEvent{read}, false},
		"with CR LF":        {strings.ReplaceAll(event, "\n", "\r\n"), []FeedEvent{read}, false},
		"no spaces":         {strings.ReplaceAll(event, ": ", ":"), []FeedEvent{read}, false},
		"half a line":       {event + "event: revoc", []FeedEvent{read}, false},
		"no empty line":     {event[:len(event)-1], nil, false},
		"heartbeats":        {":\n\n: hello\n\n", []FeedEvent{{Kind: FeedHeartbeat}, {Kind: FeedHeartbeat}}, false},
		"gap":               {"event: gap\ndata: {}\n\n", []FeedEvent{{Kind: FeedGap}}, false},
		"current":           {"event: current\ndata: {\"heartbeat\":2500,\"x\":1}\n\n", []FeedEvent{{Kind: FeedCurrent, Heartbeat: 2500 * time.Millisecond}}, false},
		"unknown event":     {"event: later\nid: p9\ndata: x\n\n" + event, []FeedEvent{read}, false},
		"unknown field":     {"retry: 5\nfoo\n" + event, []FeedEvent{read}, false},
		"no name":           {"data: {}\n\n" + event, []FeedEvent{read}, false},
		"no data":           {"event: revocation\nid: p0\n\n", nil, false},
		"data in two lines": {"event: revocation\nid: p1\ndata: {\"v\":1,\ndata:" + line(t, ended)[7:] + "\n\n", []FeedEvent{read}, false},
		"id stays":          {event + "event: revocation\ndata: " + line(t, ended) + "\n\n", []FeedEvent{read, read}, false},
		"no id":             {"event: revocation\ndata: " + line(t, ended) + "\n\n", nil, true},
		"bad id":            {"event: revocation\nid: a b\ndata: " + line(t, ended) + "\n\n", nil, true},
		"long id":           {"event: revocation\nid: " + strings.Repeat("x", 300) + "\ndata: " + line(t, ended) + "\n\n", nil, true},
		"bad revocation":    {"event: revocation\nid: p1\ndata: {}\n\n" + event, []FeedEvent{{Kind: FeedSkipped, Position: "p1"}, read}, false},
		"bad current":       {"event: current\ndata: {\"heartbeat\":0}\n\n", nil, true},
		"long line":         {"data: " + strings.Repeat("x", 20<<10) + "\n\n", nil, true},
		"long event":        {strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n", 20) + "\n", nil, true},
		"endless line":      {": " + strings.Repeat("x", 1<<20), nil, true},
	} {
		got, err := collect(c.stream)
		for i := range got {
			if (got[i].Kind == FeedSkipped) != (got[i].Err != nil) {
				t.Errorf("%s: %+v", name, got[i])
			}
			got[i].Err = nil
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
		if !errors.Is(err, ErrUnavailable) || errors.Is(err, io.ErrUnexpectedEOF) == c.wrong {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzEvents: no stream panics, memory is bounded, and each revocation is well-formed.
func FuzzEvents(f *testing.F) {
	for _, r := range revocations {
		b, _ := json.Marshal(r)
		f.Add([]byte("event: revocation\nid: p1\ndata: " + string(b) + "\n\n"))
	}
	f.Add([]byte(":\n\nevent: gap\r\ndata\r\n\r\nevent:current\ndata:{\"heartbeat\":1}\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		err := readEvents(bytes.NewReader(in), func(e FeedEvent) error {
			if e.Kind != FeedRevocation {
				return nil
			}
			if !validPosition(e.Position) {
				t.Fatalf("position %q", e.Position)
			}
			b, err := e.Revocation.MarshalJSON()
			if err != nil {
				t.Fatalf("%+v cannot be written: %v", e.Revocation, err)
			}
			var again revocation.Event
			if err := again.UnmarshalJSON(b); err != nil || again != e.Revocation {
				t.Fatalf("%+v is read again as %+v, %v", e.Revocation, again, err)
			}
			return nil
		})
		if !errors.Is(err, ErrUnavailable) {
			t.Fatalf("a stream that ended gives %v", err)
		}
	})
}

// TestFollowAnswers is about answers that are no feed.
func TestFollowAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		status      int
		contentType string
		body        string
		want        error
	}{
		"no key":        {401, wire.ContentType, `{"Code":"unauthorized","Message":"m"}`, ErrBadRequest},
		"no such path":  {404, wire.ContentType, `{"Code":"not found","Message":"m"}`, ErrBadRequest},
		"draining":      {503, wire.ContentType, `{"Code":"unavailable","Message":"m"}`, ErrUnavailable},
		"a proxy":       {200, "text/html", "<html>", ErrUnavailable},
		"JSON":          {200, wire.ContentType, "{}", ErrUnavailable},
		"a feed, 500":   {500, sse.ContentType, ":\n\n", ErrUnavailable},
		"a feed":        {200, sse.ContentType + "; charset=utf-8", ":\n\n", ErrUnavailable},
		"a redirection": {302, sse.ContentType, "", ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get(wire.HeaderLastEventID) != "p7" || r.Header.Get(wire.HeaderAuthorization) != "Bearer key" || r.URL.Path != wire.PathRevocations {
					t.Errorf("requested %s with %v", r.URL, r.Header)
				}
				w.Header().Set("Content-Type", c.contentType)
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			}))
			defer s.Close()
			client, err := New(Config{URL: s.URL, APIKey: secret.Bytes("key")})
			if err != nil {
				t.Fatal(err)
			}
			beats := 0
			err = client.FollowRevocations(t.Context(), "p7", func(FeedEvent) error { beats++; return nil })
			if !errors.Is(err, c.want) || beats > 0 != (name == "a feed") {
				t.Errorf("%d heartbeats, and then %v", beats, err)
			}
		})
	}
}

var errEnough = errors.New("enough")

// piped is a service on the other end of a pipe, within a synctest bubble.
func piped(t *testing.T, serve func(w io.Writer)) *Client {
	t.Helper()
	client, err := New(Config{URL: "http://service.example", APIKey: secret.Bytes("key"), HTTPClient: &http.Client{
		Timeout: time.Second, // of a usual request, not of this one
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go func() {
					defer theirs.Close()
					buf := make([]byte, 4096)
					if _, err := theirs.Read(buf); err != nil {
						return
					}
					io.WriteString(theirs, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
					serve(theirs)
					io.Copy(io.Discard, theirs) // until the client hangs up
				}()
				return ours, nil
			},
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestFollowNoticesSilence: a line on which nothing comes for three heartbeats
// is dead; one on which something comes is not, however long it lasts.
func TestFollowNoticesSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		client := piped(t, func(w io.Writer) {
			io.WriteString(w, "event: current\ndata: {\"heartbeat\":20000}\n\n")
			for range 100 {
				time.Sleep(50 * time.Second)
				io.WriteString(w, ":\n\n")
			}
		})
		beats := 0
		err := client.FollowRevocations(t.Context(), "", func(e FeedEvent) error {
			if e.Kind == FeedHeartbeat {
				beats++
			}
			return nil
		})
		if !errors.Is(err, errSilent) || !errors.Is(err, ErrUnavailable) || beats != 100 {
			t.Errorf("after %d heartbeats: %v", beats, err)
		}
		if took := time.Since(start); took != 100*50*time.Second+60*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestFollowEnds: the connection ends with an error of the callback, or with ctx.
func TestFollowEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		serve := func(w io.Writer) {
			for i := range 1000 {
				if _, err := fmt.Fprintf(w, "event: revocation\nid: p%d\ndata: %s\n\n", i, line(t, ended)); err != nil {
					return
				}
			}
		}
		n := 0
		err := piped(t, serve).FollowRevocations(t.Context(), "", func(e FeedEvent) error {
			if want := fmt.Sprintf("p%d", n); e.Position != want {
				t.Errorf("%s comes where %s should", e.Position, want)
			}
			if n++; n == 500 {
				return errEnough
			}
			return nil
		})
		if err != errEnough || n != 500 {
			t.Errorf("after %d: %v", n, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		err = piped(t, serve).FollowRevocations(ctx, "", func(FeedEvent) error { cancel(); return nil })
		if !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnavailable) {
			t.Errorf("cancelled: %v", err)
		}
	})
}
