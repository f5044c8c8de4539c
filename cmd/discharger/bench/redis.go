package bench

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

// redisInfo is what a server says of itself.
type redisInfo struct {
	commands uint64 // processed since the start, but for those that ask
	memory   int64  // used, in bytes
}

// info asks the server. What is under way in the client does not matter: it is
// asked on a connection of its own.
func (r *redisServer) info() (i redisInfo, err error) {
	c, err := net.Dial("unix", r.socket)
	if err != nil {
		return i, fmt.Errorf("ask redis: %w", err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(slow)); err != nil {
		return i, err
	}
	if _, err := io.WriteString(c, "INFO everything\r\n"); err != nil {
		return i, err
	}
	in := bufio.NewReader(c)
	head, err := in.ReadString('\n')
	if err != nil || head[0] != '$' {
		return i, fmt.Errorf("ask redis: %w, answer %q", err, head)
	}
	length, err := strconv.Atoi(strings.TrimSpace(head[1:]))
	if err != nil {
		return i, err
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(in, text); err != nil {
		return i, err
	}
	return parseInfo(string(text))
}

func parseInfo(text string) (i redisInfo, err error) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if command, ok := strings.CutPrefix(name, "cmdstat_"); ok && command != "info" {
			calls, _, _ := strings.Cut(strings.TrimPrefix(value, "calls="), ",")
			n, bad := strconv.ParseUint(calls, 10, 64)
			err = errors.Join(err, bad)
			i.commands += n
		}
		if name == "used_memory" {
			n, bad := strconv.ParseInt(value, 10, 64)
			err = errors.Join(err, bad)
			i.memory = n
		}
	}
	return i, err
}
