package main

import (
	"os/exec"
	"testing"

	"github.com/discharger/discharger/discharger/store/redistest"
	"github.com/discharger/discharger/discharger/testkit"
)

// When Redis loses its data under a running service, the log and the metrics have
// that without a request.
func TestRedisLost(t *testing.T) {
	t.Parallel()
	f, redis := testkit.NewFolder(t), redistest.Start(t)
	f.Write("c.yaml", "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\n"+
		"store: {redis: {addresses: [%s], timeouts: {dial: 10s, read: 10s, write: 10s}}}\n", redis.Socket)
	program, err := exec.LookPath("discharger")
	testkit.NoError(t, err)
	keysCommand(t, f, program, "init", "--config", "c.yaml")
	p := runProgram(t, f.Dir, "serve", "--config", "c.yaml")
	_, admin, err := p.addresses()
	testkit.NoError(t, err)
	if got := metric(t, admin, "discharger_store_lost"); got != "0" {
		t.Errorf("lost is %q at the start", got)
	}
	redis.Kill(t)
	redis.Restart(t)
	_, err = p.waitFor(`level=ERROR msg="(store has lost its data)`)
	testkit.NoError(t, err)
	if got := metric(t, admin, "discharger_store_lost"); got != "1" {
		t.Errorf("lost is %q", got)
	}
	finish(t, p)
}
