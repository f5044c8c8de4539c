package gateway

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
)

// tap forwards connections to a homeserver and records the bytes sent to it.
type tap struct {
	net.Listener
	mu  sync.Mutex
	all bytes.Buffer
}

func newTap(t *testing.T, target string) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.NoError(t, err)
	p := &tap{Listener: l}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				in.Close()
				continue
			}
			go func() { _, _ = io.Copy(io.MultiWriter(p, out), in); out.Close() }()
			go func() { _, _ = io.Copy(in, out); in.Close() }()
		}
	}()
	return p
}

// Write records bytes.
func (p *tap) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.all.Write(b)
}

// head returns the lines of the request with a mark in its first line, and the bytes
// after them; nil: there was none.
func (p *tap) head(mark string) (lines []string, rest string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, text, ok := strings.Cut(p.all.String(), mark)
	if !ok {
		return nil, ""
	}
	head, rest, _ := strings.Cut(text, "\r\n\r\n")
	return strings.Split(head, "\r\n")[1:], rest
}

// exchange sends a raw request, and returns the status and headers of the response; 0:
// there is none.
func (w *world) exchange(request string) (int, http.Header) {
	w.t.Helper()
	conn, err := net.Dial("tcp", w.http.Listener.Addr().String())
	testkit.NoError(w.t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, request)
	testkit.NoError(w.t, err)
	in := bufio.NewReader(conn)
	for {
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			return 0, nil
		}
		if resp.StatusCode != http.StatusContinue {
			_, _ = io.Copy(io.Discard, resp.Body)
			return resp.StatusCode, resp.Header
		}
	}
}

// Headers that reach the homeserver, by those that a client sends through a trusted
// proxy.
func TestHeaders(t *testing.T) {
	t.Parallel()
	var tapped *tap
	w := newWorld(t, func(w *world) {
		tapped = newTap(t, w.hs.Listener.Addr().String())
		w.cfg.Upstream = "http://" + tapped.Addr().String()
		w.cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	ours := w.login(false).text("access_token")
	upstream := "Authorization: Bearer " + w.hs.made[len(w.hs.made)-1]
	token := "Authorization: Bearer " + ours
	const foreign = "Authorization: Bearer syt_x"
	const from = "X-Forwarded-For: 192.0.2.1"
	for i, c := range []struct {
		name   string
		method string   // GET if empty
		send   []string // headers
		body   string
		status int      // 200 if 0; otherwise the request is not forwarded
		want   []string // headers that arrive
		never  []string // names of headers that do not arrive
	}{
		{name: "nothing", want: []string{"Host: hs.example", "X-Forwarded-For: 127.0.0.1", "X-Real-Ip: 127.0.0.1", "X-Forwarded-Host: hs.example", "X-Forwarded-Proto: http"}},
		{name: "own token", send: []string{token}, want: []string{upstream}},
		{name: "token named by Connection", send: []string{token, "Connection: Authorization"}, want: []string{upstream}, never: []string{"connection"}},
		{name: "token named in a list", send: []string{token, "Connection: close , authorization,,X-Mine", "X-Mine: 1"}, want: []string{upstream}, never: []string{"x-mine"}},
		{name: "foreign token named by Connection", send: []string{foreign, "Connection: AUTHORIZATION"}, want: []string{foreign}},
		{name: "two Connections", send: []string{foreign, "Connection: X-A", "Connection: X-B, authorization", "X-A: 1", "X-B: 1", "X-C: 1"}, want: []string{foreign, "X-C: 1"}, never: []string{"x-a", "x-b", "connection"}},
		{name: "type named by Connection", method: "POST", send: []string{foreign, "Connection: Content-Type, Content-Length, Content-Encoding", "Content-Type: application/json", "Content-Length: 2"}, body: "{}", want: []string{"Content-Type: application/json", "Content-Length: 2"}},
		{name: "address named by Connection", send: []string{from, "Connection: X-Forwarded-For, X-Real-Ip, X-Forwarded-Proto, X-Forwarded-Host, Host"}, want: []string{from, "X-Real-Ip: 192.0.2.1", "X-Forwarded-Proto: http", "Host: hs.example"}},
		{name: "cookies and ranges named by Connection", send: []string{"Connection: Cookie, Range, If-None-Match, User-Agent", "Cookie: a=1", "Range: bytes=0-1", "If-None-Match: x", "User-Agent: test"}, want: []string{"Cookie: a=1", "Range: bytes=0-1", "If-None-Match: x", "User-Agent: test"}},
		{name: "hop by hop", send: []string{"Proxy-Connection: keep-alive", "Keep-Alive: 5", "Proxy-Authorization: Basic eA==", "Proxy-Authenticate: x", "TE: trailers, deflate", "Trailer: X-Y"}, never: []string{"proxy-connection", "keep-alive", "proxy-authorization", "proxy-authenticate", "te", "trailer"}},
		{name: "upgrade", send: []string{token, "Connection: Upgrade", "Upgrade: websocket"}, want: []string{upstream}, never: []string{"upgrade", "connection"}},
		{name: "upgrade to HTTP/2", send: []string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"}, never: []string{"upgrade", "http2-settings"}},
		{name: "upgrade to nonsense", send: []string{"Connection: Upgrade", "Upgrade: \xff"}, never: []string{"upgrade"}},
		{name: "expectation", method: "PUT", send: []string{foreign, "Expect: 100-continue", "Content-Length: 2"}, body: "{}", want: []string{"Content-Length: 2"}, never: []string{"expect"}},
		{name: "expectation beside another", method: "PUT", send: []string{foreign, "Expect: 100-continue", "Expect: more", "Content-Length: 2"}, body: "{}", never: []string{"expect"}},
		{name: "unknown expectation", method: "PUT", send: []string{foreign, "Expect: more", "Content-Length: 2"}, body: "{}", status: 417},
		{name: "trailers", method: "PUT", send: []string{foreign, "Transfer-Encoding: chunked", "Trailer: Authorization, X-Y"}, body: "2\r\n{}\r\n0\r\nAuthorization: Bearer syt_trailer\r\nX-Y: syt_trailer\r\n\r\n", want: []string{"Transfer-Encoding: chunked", foreign}, never: []string{"trailer"}},
		{name: "two lengths", method: "PUT", send: []string{"Content-Length: 2", "Content-Length: 3"}, body: "{}", status: 400},
		{name: "two lengths in one", method: "PUT", send: []string{"Content-Length: 2, 3"}, body: "{}", status: 400},
		{name: "length and chunks", method: "PUT", send: []string{"Content-Length: 40", "Transfer-Encoding: chunked"}, body: "2\r\n{}\r\n0\r\n\r\n", want: []string{"Transfer-Encoding: chunked"}, never: []string{"content-length"}},
		{name: "two encodings", method: "PUT", send: []string{"Transfer-Encoding: chunked", "Transfer-Encoding: identity"}, body: "0\r\n\r\n", status: 501},
		{name: "unknown encoding", method: "PUT", send: []string{"Transfer-Encoding: xchunked"}, body: "0\r\n\r\n", status: 501},
		{name: "length with an underscore", method: "PUT", send: []string{"Content_Length: 40", "Content-Length: 2"}, body: "{}", want: []string{"Content-Length: 2"}, never: []string{"content_length"}},
		{name: "foreign forwarding headers", send: []string{from, "Forwarded: for=203.0.113.9", "X-Real-IP: 203.0.113.9", "X-Forwarded-Port: 1", "X-Forwarded-Prefix: /x", "X-Forwarded-Server: x"}, want: []string{from, "X-Real-Ip: 192.0.2.1"}, never: []string{"forwarded", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-server"}},
		{name: "underscores", send: []string{from, "X_Forwarded_For: 203.0.113.9", "X-Forwarded_For: 203.0.113.9", "X_Real_IP: 203.0.113.9", "X_Forwarded_Proto: https", "x_forwarded-host: evil"}, want: []string{from, "X-Forwarded-Proto: http"}, never: []string{"x_forwarded_for", "x-forwarded_for", "x_real_ip", "x_forwarded_proto", "x_forwarded-host"}},
		{name: "space in a name", send: []string{"X-Forwarded-For : 203.0.113.9"}, status: 400},
		{name: "folded line", send: []string{"X-A: 1", " X-Forwarded-For: 203.0.113.9"}, want: []string{"X-A: 1 X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 127.0.0.1"}},
		{name: "referer", send: []string{"Referer: https://app.example/?room=x"}, want: []string{"Referer: https://app.example/?room=x"}},
		{name: "referer with a token", send: []string{"Referer: https://hs.example/x?a=1&access_token=syt_x"}, never: []string{"referer"}},
		{name: "referer with an encoded token", send: []string{"Referer: https://hs.example/x?%61ccess%5Ftoken=syt_x"}, never: []string{"referer"}},
		{name: "referer with a token encoded twice", send: []string{"Referer: https://hs.example/x?next=%2Fy%3F%2561ccess_token%3Dsyt_x"}, never: []string{"referer"}},
		{name: "referer with a token of ours", send: []string{"Referer: https://hs.example/#" + ours}, never: []string{"referer"}},
		{name: "referer that cannot be decoded", send: []string{"Referer: https://hs.example/?x=%zz"}, never: []string{"referer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			method, mark := c.method, fmt.Sprintf("case=%d ", i)
			if method == "" {
				method = "GET"
			}
			request := method + " /_matrix/client/v3/rooms/!r:hs/state/m.x/y?" + mark + "HTTP/1.1\r\nHost: hs.example\r\n" +
				strings.Join(c.send, "\r\n") + "\r\n\r\n" + c.body
			if len(c.send) == 0 {
				request = method + " /_matrix/client/v3/rooms/!r:hs/state/m.x/y?" + mark + "HTTP/1.1\r\nHost: hs.example\r\n\r\n"
			}
			status, _ := w.exchange(request)
			lines, rest := tapped.head(mark)
			if want := max(c.status, 200) == 200; want != (lines != nil) || !want && status != c.status || want && status >= 500 {
				t.Fatalf("status %d, arrived: %q", status, lines)
			}
			for _, want := range c.want {
				if name, _, _ := strings.Cut(want, ":"); !slices.Contains(lines, want) || count(lines, name) != 1 {
					t.Errorf("want %q alone, arrived: %q", want, lines)
				}
			}
			for _, name := range c.never {
				if count(lines, name) > 0 {
					t.Errorf("%s arrived: %q", name, lines)
				}
			}
			if strings.Contains(rest, "syt_trailer") {
				t.Errorf("trailers arrived: %q", rest)
			}
		})
	}
}

func count(lines []string, name string) (n int) {
	for _, line := range lines {
		if got, _, _ := strings.Cut(line, ":"); strings.EqualFold(got, name) {
			n++
		}
	}
	return n
}

// A 101 of the homeserver is not forwarded, with or without Upgrade in the request.
func TestSwitchedProtocols(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.login(false).text("access_token")
	for _, c := range []struct{ name, ask, answer string }{
		{"upgrade", "Connection: Upgrade\r\nUpgrade: x\r\n", "Connection: Upgrade\r\nUpgrade: x\r\n"},
		{"without upgrade", "", "Connection: Upgrade\r\nUpgrade: x\r\n"},
		{"to nothing", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.hs.handler = func(rw http.ResponseWriter, r *http.Request) {
				conn, buf, err := http.NewResponseController(rw).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				_, _ = buf.WriteString("HTTP/1.1 101 Switching Protocols\r\n" + c.answer + "\r\nsecret")
				_ = buf.Flush()
			}
			status, h := w.exchange("GET " + upstream.PathWhoami + " HTTP/1.1\r\nHost: hs\r\nAuthorization: Bearer " + token + "\r\n" + c.ask + "\r\n")
			if status != http.StatusBadGateway || h.Get("Upgrade") != "" {
				t.Errorf("%d %v", status, h)
			}
		})
	}
}
