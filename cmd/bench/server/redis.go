package server

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

	"github.com/discharger/discharger/cmd/bench/load"
)

// redisServer is a redis-server on a unix socket, without persistence.
type redisServer struct {
	*process
	dir    string // short, as the path of a socket has to be
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
	return errors.Join(r.Kill(), os.RemoveAll(r.dir))
}

// memory returns the memory used by the server, in bytes.
func (r *redisServer) memory() (int64, error) {
	c, err := net.Dial("unix", r.socket)
	if err != nil {
		return 0, fmt.Errorf("read redis memory: %w", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(load.Timeout)); err != nil {
		return 0, err
	}
	if _, err := io.WriteString(c, "INFO memory\r\n"); err != nil {
		return 0, err
	}
	in := bufio.NewReader(c)
	head, err := in.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("read redis memory: %w", err)
	}
	if head[0] != '$' {
		return 0, fmt.Errorf("read redis memory: unexpected answer %q", head)
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

// usedMemory returns the value of used_memory in the output of INFO.
func usedMemory(info string) (int64, error) {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "used_memory:"); ok {
			return strconv.ParseInt(value, 10, 64)
		}
	}
	return 0, errors.New("read redis memory: no used_memory in INFO")
}
