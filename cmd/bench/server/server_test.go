package server

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestUsage(t *testing.T) {
	t.Parallel()
	p := &process{cmd: exec.Command(os.Args[0])}
	p.cmd.Process = &os.Process{Pid: os.Getpid()}
	before, err := p.Usage()
	if err != nil {
		t.Fatal(err)
	}
	for after := before; after.CPU == before.CPU; {
		if after, err = p.Usage(); err != nil {
			t.Fatal(err)
		}
		if used := after.CPU - before.CPU; used < 0 || used%(10*time.Millisecond) == 0 && used > 0 {
			t.Errorf("%v of processor time is a multiple of hundredths of a second", used)
		}
	}
}

func TestUsedMemory(t *testing.T) {
	t.Parallel()
	if n, err := usedMemory("# Memory\r\nused_memory:1234\r\nused_memory_human:1K\r\n"); n != 1234 || err != nil {
		t.Error(n, err)
	}
	if _, err := usedMemory("# Memory\r\n"); err == nil {
		t.Error("no error")
	}
}
