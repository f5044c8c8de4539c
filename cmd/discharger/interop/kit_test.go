//go:build interop

package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

var binaryUnderTest = flag.String("discharger", "", "path of the binary under test; empty: build it from this tree")

// kit holds the programs and libraries that are built and installed first.
type kit struct {
	dir         string
	discharger  string // the binary under test
	nodeModules string
	verifyC     string // testdata/verify.c, compiled
}

// debianPython is the interpreter of Debian's Python packages. Another one may come
// first in PATH.
const debianPython = "/usr/bin/python3"

// assemble builds and installs all parts concurrently.
func assemble(t *testing.T) *kit {
	t.Helper()
	k := &kit{dir: t.TempDir(), discharger: *binaryUnderTest}
	var wg sync.WaitGroup
	var problems problems
	if k.discharger == "" {
		k.discharger = filepath.Join(k.dir, "discharger")
		wg.Go(func() {
			problems.add(command(t, "go", "build", "-o", k.discharger, "github.com/discharger/discharger/cmd/discharger"))
		})
	}
	k.verifyC = filepath.Join(k.dir, "verify")
	wg.Go(func() {
		problems.add(command(t, "cc", "-Wall", "-Werror", "-o", k.verifyC, filepath.Join("testdata", "verify.c"), "-lmacaroons"))
	})
	k.nodeModules = filepath.Join(k.dir, "node_modules")
	wg.Go(func() { problems.add(k.installNodeModules(t)) })
	wg.Go(func() {
		problems.add(command(t, debianPython, "-c", "import macaroonbakery.httpbakery, pymacaroons, requests"))
	})
	wg.Wait()
	if len(problems.all) > 0 {
		t.Fatalf("tools are missing; .ci/test installs them:\n%s", bytes.Join(problems.all, nil))
	}
	return k
}

// problems collects the output of failed commands.
type problems struct {
	mu  sync.Mutex
	all [][]byte
}

func (p *problems) add(problem []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if problem != nil {
		p.all = append(p.all, problem)
	}
}

// command runs a command, and returns its output if it failed.
func command(t *testing.T, name string, args ...string) []byte {
	return run(exec.CommandContext(t.Context(), name, args...))
}

func run(cmd *exec.Cmd) []byte {
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	return append(out, (cmd.String() + ": " + err.Error() + "\n")...)
}

// installNodeModules installs the packages of testdata/package.json, which lists all
// of them, indirect ones included, at exact versions.
func (k *kit) installNodeModules(t *testing.T) []byte {
	list, err := os.ReadFile(filepath.Join("testdata", "package.json"))
	if err == nil {
		err = os.WriteFile(filepath.Join(k.dir, "package.json"), list, 0o600)
	}
	if err != nil {
		return []byte(err.Error())
	}
	cmd := exec.CommandContext(t.Context(), "npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries", "5")
	cmd.Dir = k.dir
	return run(cmd)
}

// step is one line of a script's output.
type step struct {
	Name      string          `json:"step"`
	Macaroons json.RawMessage `json:"macaroons"` // a list, each in JSON, bound

	Status      int    `json:"status"` // of an HTTP answer
	ContentType string `json:"content_type"`
	Body        string `json:"body"`

	Error   string `json:"error"`   // name of the error of the client's library
	Message string `json:"message"` // and its text

	OK         bool     `json:"ok"` // of a verifier
	Conditions []string `json:"conditions"`
}

// scriptTimeout only ends a script that hangs.
const scriptTimeout = 2 * time.Minute

// python runs a script under testdata with Debian's Python.
func (k *kit) python(t *testing.T, script string, task any) []step {
	t.Helper()
	return k.script(t, task, debianPython, filepath.Join("testdata", script))
}

// node runs a script under testdata with Node.js and the installed packages.
func (k *kit) node(t *testing.T, script string, task any) []step {
	t.Helper()
	return k.script(t, task, "node", filepath.Join("testdata", script))
}

func (k *kit) script(t *testing.T, task any, name string, args ...string) []step {
	t.Helper()
	in, err := json.Marshal(task)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), scriptTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "NODE_PATH="+k.nodeModules, "PYTHONDONTWRITEBYTECODE=1", "no_proxy=127.0.0.0/8")
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", cmd, err, out, stderr.Bytes())
	}
	var steps []step
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var s step
		err := dec.Decode(&s)
		if err == io.EOF {
			return steps
		}
		if err != nil {
			t.Fatalf("%s printed %q: %v", cmd, out, err)
		}
		steps = append(steps, s)
	}
}
