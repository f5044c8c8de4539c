package main

import (
	"os/exec"
	"testing"

	"github.com/discharger/discharger/discharger/store/redistest"
)

// When Redis loses its data under a running service, the log and the metrics have
// that without a request.
func TestRedisLost(t *testing.T) {
	t.Parallel()
	f, redis := folder{t, t.TempDir()}, redistest.Start(t)
	f.write("c.yaml", "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\n"+
		"store: {redis: {addresses: [%s], timeouts: {dial: 10s, read: 10s, write: 10s}}}\n", redis.Socket)
	program, err := exec.LookPath("discharger")
	fine(t, err)
	f.keys(program, "init", "--config", "c.yaml")
	p := runProgram(t, f.dir, "serve", "--config", "c.yaml")
	_, admin, err := p.addresses()
	fine(t, err)
	if got := metric(t, admin, "discharger_store_lost"); got != "0" {
		t.Errorf("lost is %q at the start", got)
	}
	redis.Kill(t)
	redis.Restart(t)
	_, err = p.waitFor(`level=ERROR msg="(store has lost its data)`)
	fine(t, err)
	if got := metric(t, admin, "discharger_store_lost"); got != "1" {
		t.Errorf("lost is %q", got)
	}
	finish(t, p)
}
