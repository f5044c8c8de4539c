package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/discharger/discharger/discharger/testkit"
)

// operator follows the operator's guide: a service, a homeserver's key file and
// the user @alice:example.org, whose device is PHONE.
type operator struct {
	t       *testing.T
	dir     string
	env     []string
	service *process
	address string
	added   string // id of the last key that was added
}

func newOperator(t *testing.T) *operator {
	dir := t.TempDir()
	config := filepath.Join(dir, "discharger.yaml")
	o := &operator{t: t, dir: dir, env: append(os.Environ(), "DISCHARGER_CONFIG="+config)}
	testkit.NoError(t, os.WriteFile(config, []byte(patientSetting+"listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\n"), 0o600))
	o.start()
	t.Cleanup(func() { o.service.kill() })
	o.run("discharger keys new --kind homeserver --name example.org --service " + o.address + " homeserver.json >> discharger.yaml")
	testkit.NoError(t, o.service.cmd.Process.Signal(syscall.SIGHUP))
	_, err := o.service.waitFor("msg=reloaded homeservers=1")
	testkit.NoError(t, err)
	o.run("cp discharger-data/keys.json keys.json")
	o.run("discharger backup FILE")
	return o
}

// start starts the service on its ports of before, if it had any.
func (o *operator) start() {
	o.t.Helper()
	program, err := exec.LookPath("discharger")
	testkit.NoError(o.t, err)
	o.service, err = start(o.dir, o.env, program, "serve")
	testkit.NoError(o.t, err)
	client, admin, err := o.service.addresses()
	testkit.NoError(o.t, err)
	o.address = client
	o.env = append(o.env, "DISCHARGER_SERVICE="+client, "DISCHARGER_LISTEN="+strings.TrimPrefix(client, "http://"),
		"DISCHARGER_ADMIN_LISTEN="+strings.TrimPrefix(admin, "http://"))
}

// run runs a line of a shell, which must succeed, and returns its output.
func (o *operator) run(line string) string {
	o.t.Helper()
	cmd := exec.Command("sh", "-c", line)
	cmd.Dir, cmd.Env = o.dir, o.env
	out, err := cmd.CombinedOutput()
	if err != nil {
		o.t.Errorf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// login makes a session on alice's device, and a file with its revocation.
func (o *operator) login() (session string) {
	o.t.Helper()
	out := o.run("discharger mint --key homeserver.json --user @alice:example.org --device PHONE | { rm -f alice.json; discharger discharge -o alice.json; }")
	m := regexp.MustCompile(`session (\S{22})`).FindStringSubmatch(out)
	if m == nil {
		o.t.Fatalf("no session: %s", out)
	}
	text := fmt.Sprintf(`{"user":"@alice:example.org","session":%q}`, m[1])
	testkit.NoError(o.t, os.WriteFile(filepath.Join(o.dir, "revocations"), []byte(text), 0o600))
	return m[1]
}

// follow runs a line of the guide, with the names of the test in the places of those
// of an operator, and reports whether it is one for this program.
func (o *operator) follow(line string) bool {
	o.t.Helper()
	line, _, _ = strings.Cut(line, " #")
	line = strings.NewReplacer("--config /etc/discharger/discharger.yaml ", "", "\n", "").Replace(line)
	switch {
	case line == "systemctl stop discharger":
		testkit.NoError(o.t, o.service.cmd.Process.Signal(syscall.SIGTERM))
		_, err := o.service.wait()
		testkit.NoError(o.t, err)
	case line == "systemctl start discharger":
		o.start()
	case strings.HasPrefix(line, "discharger sessions "):
		if strings.Contains(line, " watch ") {
			line += " --once"
		}
		o.run(strings.NewReplacer("SESSION", o.login(), "FILE", "revocations").Replace(line))
	case strings.HasPrefix(line, "discharger keys retire OLD "):
		old := regexp.MustCompile(`refresh +(\S{8}) +previous`).FindStringSubmatch(o.run("discharger keys list keys.json"))
		if old == nil {
			o.t.Fatal("no previous key")
		}
		line = strings.Replace(line, "OLD", old[1], 1)
		if out := o.run(line + " || [ $? = 2 ]"); !strings.Contains(out, "nothing was changed; add --yes") {
			o.t.Errorf("%s\n%s", line, out)
		}
		o.run(line + " --yes")
	case strings.HasPrefix(line, "discharger "):
		out := o.run(strings.Replace(line, " ID ", " "+o.added+" ", 1))
		if m := regexp.MustCompile(`staged \S+ key (\S{8})`).FindStringSubmatch(out); m != nil {
			o.added = m[1]
		}
	default:
		return false
	}
	return true
}

// TestOperatorsGuideCommands runs the commands of the operator's guide, in their order,
// against a service. Commands of other programs are left out; those that stop and
// start the service's unit do so with the test's.
func TestOperatorsGuideCommands(t *testing.T) {
	t.Parallel()
	o := newOperator(t)
	commands := 0
	for _, b := range fenced.FindAllStringSubmatch(readDocument(t, "deploy/README.md"), -1) {
		if b[1] != "sh" {
			continue
		}
		for line := range strings.Lines(b[2]) {
			if o.follow(line) {
				commands++
			}
		}
	}
	if commands != 16 {
		t.Errorf("%d commands", commands)
	}
}

// commandSpan and commandLine match command lines of the program in a document.
var (
	commandSpan = regexp.MustCompile("`(discharger [a-z]+(?: [^`]*)?)`")
	commandLine = regexp.MustCompile(`(?m)^(?:\$ )?(discharger [a-z][^#|<>\n]*)`)
)

// TestCommandsInDocuments checks that every command in a document for operators exists
// with its flags.
func TestCommandsInDocuments(t *testing.T) {
	t.Parallel()
	documents, err := filepath.Glob(filepath.Join("..", "..", "deploy", "*.md"))
	testkit.NoError(t, err)
	checked := 0
	for _, file := range append(documents, "../../README.md") {
		text := readDocument(t, strings.TrimPrefix(filepath.ToSlash(file), "../../"))
		commands := commandSpan.FindAllStringSubmatch(text, -1)
		for _, b := range fenced.FindAllStringSubmatch(text, -1) {
			commands = append(commands, commandLine.FindAllStringSubmatch(b[2], -1)...)
		}
		checked += len(commands)
		for _, m := range commands {
			line := strings.Join(strings.Fields(strings.ReplaceAll(m[1], "'", "")), " ")
			t.Run(line, func(t *testing.T) {
				out, err := exec.Command("discharger", append(strings.Fields(line)[1:], "--help")...).CombinedOutput()
				if err != nil || !strings.HasPrefix(string(out), "usage: discharger") {
					t.Errorf("%s: %v\n%s", filepath.Base(file), err, out)
				}
			})
		}
	}
	if checked < 30 {
		t.Errorf("only %d commands", checked)
	}
}

// TestReleaseHasItsVersion checks that image and release set the version with variables
// that exist.
func TestReleaseHasItsVersion(t *testing.T) {
	t.Parallel()
	code := readDocument(t, "cmd/discharger/main.go")
	for _, file := range []string{"Dockerfile", ".ci/release"} {
		set := regexp.MustCompile(`-X main\.(\w+)=`).FindAllStringSubmatch(readDocument(t, file), -1)
		if len(set) != 3 {
			t.Errorf("%s sets %d variables", file, len(set))
		}
		for _, m := range set {
			if !regexp.MustCompile(`(?m)^var .*\b` + m[1] + `\b`).MatchString(code) {
				t.Errorf("%s sets %s, which does not exist", file, m[1])
			}
		}
	}
}
