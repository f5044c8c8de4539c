package redis_test

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// A proxy stands between a store and its server and makes trouble on request.
type proxy struct {
	addr    string
	target  string
	cut     atomic.Int64           // replies to scripts that are swallowed, and their connections closed
	every   atomic.Int64           // if not 0, each such reply to anything is
	replies atomic.Int64           // seen so far
	rubbish atomic.Pointer[[]byte] // if not nil, the reply to send instead
	mu      sync.Mutex             // guards conns
	conns   map[net.Conn]struct{}  // to be closed in the end
}

func startProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.53.7.2:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), target: target, conns: make(map[net.Conn]struct{})}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.disconnect()
		wg.Wait()
	})
	return p
}

// disconnect closes all connections.
func (p *proxy) disconnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("unix", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	p.mu.Unlock()
	var script atomic.Bool // a script's reply is due
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer server.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := client.Read(buf)
			if bytes.Contains(buf[:n], []byte("\r\neval")) {
				script.Store(true)
			}
			if _, werr := server.Write(buf[:n]); err != nil || werr != nil {
				return
			}
		}
	}()
	p.answer(client, server, &script)
	client.Close()
	<-done
}

// answer passes on replies, as long as nothing is to be done to them.
func (p *proxy) answer(client, server net.Conn, script *atomic.Bool) {
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		out := buf[:n]
		if script.Swap(false) && p.cut.Add(-1) >= 0 {
			return
		}
		if every := p.every.Load(); every > 0 && p.replies.Add(1)%every == 0 {
			return
		}
		if b := p.rubbish.Load(); b != nil {
			out = *b
		}
		if _, err := io.Copy(client, bytes.NewReader(out)); err != nil {
			return
		}
	}
}
