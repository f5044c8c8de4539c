package measure

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// redisServer is a Redis of our own, on a unix socket. It keeps nothing on disk.
type redisServer struct {
	*process
	dir    string // short, since a socket's path has to be
	socket string
}

func startRedis(ctx context.Context) (*redisServer, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	r := &redisServer{dir: dir, socket: filepath.Join(dir, "s")}
	cmd := exec.Command("redis-server", "--port", "0", "--unixsocket", r.socket, "--dir", dir, "--save", "", "--appendonly", "no")
	r.process, err = startProcess(ctx, cmd, true, func(line string) bool {
		return strings.Contains(strings.ToLower(line), "ready to accept connections")
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return r, nil
}

func (r *redisServer) stop() error {
	return errors.Join(r.kill(), os.RemoveAll(r.dir))
}

// memory asks the server what it uses, in bytes.
func (r *redisServer) memory() (int64, error) {
	c, err := net.Dial("unix", r.socket)
	if err != nil {
		return 0, fmt.Errorf("ask redis: %w", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(slow)); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(c, "INFO memory\r\n"); err != nil {
		return 0, err
	}
	in := bufio.NewReader(c)
	head, err := in.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("ask redis: %w", err)
	}
	if head[0] != '$' {
		return 0, fmt.Errorf("ask redis: it answers %q", head)
	}
	length, err := strconv.Atoi(strings.TrimSpace(head[1:]))
	if err != nil {
		return 0, err
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(in, text); err != nil {
		return 0, err
	}
	return usedMemory(string(text))
}

// usedMemory finds it in what INFO says.
func usedMemory(info string) (int64, error) {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "used_memory:"); ok {
			return strconv.ParseInt(value, 10, 64)
		}
	}
	return 0, errors.New("ask redis: it does not say what memory it uses")
}
