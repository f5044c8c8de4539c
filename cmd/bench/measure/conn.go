package measure

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// conn is one connection over HTTP/1.1 that sends requests made beforehand and
// looks into answers for what it needs.
type conn struct {
	c    net.Conn
	r    *bufio.Reader
	body []byte
}

// slow is how long an answer may take before it counts as missing.
const slow = 30 * time.Second

func dial(ctx context.Context, addr string) (*conn, error) {
	d := net.Dialer{Timeout: slow}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return newConn(c), nil
}

func newConn(c net.Conn) *conn { return &conn{c: c, r: bufio.NewReaderSize(c, 8<<10)} }

func (c *conn) close() { c.c.Close() }

// do sends a request and returns the answer. The body is valid until the next.
func (c *conn) do(request []byte) (status int, body []byte, err error) {
	if _, err := c.c.Write(request); err != nil {
		return 0, nil, err
	}
	length := -1
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		switch line = bytes.TrimRight(line, "\r\n"); {
		case len(line) == 0:
			if length < 0 || length > 16<<20 {
				return 0, nil, errors.New("an answer of no known length")
			}
			if cap(c.body) < length {
				c.body = make([]byte, length)
			}
			c.body = c.body[:length]
			_, err := io.ReadFull(c.r, c.body)
			return status, c.body, err
		case status == 0:
			if status, err = statusOf(line); err != nil {
				return 0, nil, err
			}
		case len(line) > len(contentLength) && bytes.EqualFold(line[:len(contentLength)], contentLength):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(contentLength):]))); err != nil {
				return 0, nil, err
			}
		}
	}
}

var contentLength = []byte("Content-Length:")

func statusOf(line []byte) (int, error) {
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return 0, errors.New("this is not an answer in HTTP/1.1")
	}
	return strconv.Atoi(string(line[9:12]))
}

// expire makes whatever waits on the connection fail from t on; zero: never.
func (c *conn) expire(t time.Time) error { return c.c.SetDeadline(t) }
