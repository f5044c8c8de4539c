package load

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

// Conn is an HTTP/1.1 connection that sends prepared requests and reads no more of
// an answer than its status, length and body.
type Conn struct {
	c    net.Conn
	r    *bufio.Reader
	body []byte
}

// Timeout is the longest wait for an answer.
const Timeout = 30 * time.Second

// Dial connects to host:port.
func Dial(ctx context.Context, addr string) (*Conn, error) {
	d := net.Dialer{Timeout: Timeout}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return newConn(c), nil
}

func newConn(c net.Conn) *Conn { return &Conn{c: c, r: bufio.NewReaderSize(c, 8<<10)} }

// Close closes the connection.
func (c *Conn) Close() { c.c.Close() }

// Do sends a request and returns the answer. The body is valid until the next call.
func (c *Conn) Do(request []byte) (status int, body []byte, err error) {
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
		return 0, errors.New("not an answer in HTTP/1.1")
	}
	return strconv.Atoi(string(line[9:12]))
}

// Expire makes reads and writes fail from t on; zero: never.
func (c *Conn) Expire(t time.Time) error { return c.c.SetDeadline(t) }
