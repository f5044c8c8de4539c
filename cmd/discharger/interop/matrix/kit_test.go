package matrix

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var binaryUnderTest = flag.String("discharger", "", "path of the binary under test; empty: build it from this tree")

// kit holds the programs and libraries that are built and installed first.
type kit struct {
	dir        string
	discharger string // the binary under test
	dendrite   string
	keys       string // Dendrite's generate-keys
	python     string // of Synapse's virtual environment
}

// assemble builds the programs.
func assemble(t *testing.T) *kit {
	t.Helper()
	k := assembleGateway(t)
	k.dendrite = buildTool(t, "github.com/matrix-org/dendrite/cmd/dendrite")
	k.keys = buildTool(t, "github.com/matrix-org/dendrite/cmd/generate-keys")
	return k
}

// assembleGateway builds the binary under test, and no homeserver.
func assembleGateway(t *testing.T) *kit {
	t.Helper()
	k := &kit{dir: t.TempDir(), discharger: *binaryUnderTest, python: findSynapse(t)}
	if k.discharger == "" {
		k.discharger = filepath.Join(k.dir, "discharger")
		run(t, [][]string{{"go", "build", "-C", filepath.Join("..", "..", "..", ".."), "-o", k.discharger, "./cmd/discharger"}})
	}
	return k
}

// buildTool builds a tool of this module in Go's build cache, unless it is there, and
// returns its path.
func buildTool(t *testing.T, name string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "tool", "-n", name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // for SQLite that is written in Go
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return strings.TrimSpace(string(out))
}

// installClients installs the JavaScript clients.
func (k *kit) installClients(t *testing.T) {
	t.Helper()
	for _, name := range []string{"package.json", "jssdk.mjs", "outage.mjs", "hydrogen.mjs"} {
		copyFile(t, filepath.Join(k.dir, name), filepath.Join("testdata", name))
	}
	run(t, [][]string{
		{"npm", "install", "--prefix", k.dir, "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries", "5"},
	})
}

// run runs commands concurrently and fails the test unless all succeed.
func run(t *testing.T, commands [][]string) {
	t.Helper()
	var wg sync.WaitGroup
	for _, c := range commands {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), c[0], c[1:]...)
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // for SQLite that is written in Go
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", cmd, err, out)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.Fatal("the tools are not complete; .ci/test installs them")
	}
}

func copyFile(t *testing.T, to, from string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// nodePath returns the path of Node.js.
func (k *kit) nodePath() string {
	arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	return filepath.Join(k.dir, "node_modules", "node-linux-"+arch, "bin", "node")
}

// node runs a script that was copied beside the installed packages, and parses the
// last line of its output.
func (k *kit) node(t *testing.T, script string, task, report any) {
	t.Helper()
	in, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, k.nodePath(), filepath.Join(k.dir, script))
	cmd.Env = append(os.Environ(), "no_proxy=127.0.0.0/8")
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out, stderr.Bytes())
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	if err := json.Unmarshal(lines[len(lines)-1], report); err != nil {
		t.Fatalf("%s printed %q: %v", cmd, out, err)
	}
}

// freeAddrs returns addresses of this machine at which no process listens. The host
// belongs to this process alone and each port is returned once, so that none is taken
// before it is used, or while its process restarts. The ports are below those of
// outgoing connections.
func freeAddrs(t *testing.T, n int) []string {
	t.Helper()
	pid := os.Getpid()
	all := make([]string, 0, n)
	for len(all) < n {
		port := lastPort.Add(1)
		if port >= 32768 {
			t.Fatal("no port is left")
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.53.%d.%d:%d", pid>>8&0xff, max(pid&0xff, 1), port))
		if err != nil {
			continue
		}
		l.Close()
		all = append(all, l.Addr().String())
	}
	return all
}

// lastPort is the port that freeAddrs tried last.
var lastPort = func() *atomic.Int32 {
	p := new(atomic.Int32)
	p.Store(10000)
	return p
}()

// eventually waits until ok returns true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
