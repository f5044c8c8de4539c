package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

type servicesKey struct{}

func services(ts *testscript.TestScript) map[string]*process {
	return ts.Value(servicesKey{}).(map[string]*process)
}

func service(ts *testscript.TestScript, args []string) *process {
	if len(args) == 0 {
		ts.Fatalf("which process?")
	}
	p, ok := services(ts)[args[0]]
	if !ok {
		ts.Fatalf("there is no process %s", args[0])
	}
	return p
}

// cmdExit runs the program and compares its exit code.
//
//	exit 78 discharger config check
func cmdExit(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if neg || err != nil || len(args) < 2 {
		ts.Fatalf("usage: exit code program [args...]")
	}
	err = ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// environment is that of the script, for a program in the background.
func environment(ts *testscript.TestScript) []string {
	var env []string
	names := []string{
		"PATH", "HOME", "WORK", "TMPDIR", "REDIS_PASSWORD", "DISCHARGER_LOG_LEVEL", "DISCHARGER_LOG_FORMAT", "DISCHARGER_REDIS_ADDRESSES",
	}
	for _, name := range names {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

func background(ts *testscript.TestScript, as, program string, args ...string) *process {
	p, err := start(ts.MkAbs("."), environment(ts), program, args...)
	ts.Check(err)
	ts.Defer(p.kill)
	services(ts)[as] = p
	return p
}

// cmdServe starts the service on free ports and sets $URL and $ADMIN, and
// $DISCHARGER_SERVICE to the former.
//
//	serve name [flags...]
func cmdServe(ts *testscript.TestScript, neg bool, args []string) {
	program, err := exec.LookPath("discharger")
	ts.Check(err)
	p := background(ts, args[0], program,
		append([]string{"serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}, args[1:]...)...)
	client, admin, err := p.addresses()
	if err != nil {
		ts.Fatalf("serve: %v", err)
	}
	ts.Setenv("URL", client)
	ts.Setenv("DISCHARGER_SERVICE", client)
	ts.Setenv("ADMIN", strings.TrimPrefix(admin, "http://"))
}

// cmdRedis starts a redis-server on a unix socket in the script's directory and
// sets $REDIS to its path.
//
//	redis name [settings...]
func cmdRedis(ts *testscript.TestScript, neg bool, args []string) {
	dir, err := os.MkdirTemp("", "redis-") // a socket's path has to be short
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	p := background(ts, args[0], "redis-server",
		append([]string{"--port", "0", "--unixsocket", socket, "--dir", dir, "--save", ""}, args[1:]...)...)
	if _, err := p.waitFor("[Rr]eady to accept connections"); err != nil {
		ts.Fatalf("redis: %v", err)
	}
	ts.Setenv("REDIS", socket)
}

// cmdAgain starts a process that has ended once more, as it was started.
//
//	again name
func cmdAgain(ts *testscript.TestScript, neg bool, args []string) {
	p := service(ts, args)
	background(ts, args[0], p.cmd.Path, p.cmd.Args[1:]...)
}

// cmdSignal sends a signal.
//
//	signal name HUP
func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	p := service(ts, args)
	s, ok := signalOf(args[1])
	if !ok {
		ts.Fatalf("unknown signal %s", args[1])
	}
	ts.Check(p.cmd.Process.Signal(s))
}

// cmdEnd sends a signal, TERM unless another is named, and waits for the exit
// code, 0 unless another is given. After KILL the code is -1.
//
//	end name [signal [code]]
func cmdEnd(ts *testscript.TestScript, neg bool, args []string) {
	name, want := "TERM", 0
	if len(args) > 1 {
		name = args[1]
	}
	if len(args) > 2 {
		var err error
		want, err = strconv.Atoi(args[2])
		ts.Check(err)
	}
	cmdSignal(ts, neg, []string{args[0], name})
	p := service(ts, args)
	code, err := p.wait()
	ts.Check(err)
	if code != want {
		ts.Fatalf("%s ended with code %d, want %d:\n%s", args[0], code, want, p.text())
	}
}

// cmdWaitLog waits until a process has logged something.
//
//	waitlog name pattern
func cmdWaitLog(ts *testscript.TestScript, neg bool, args []string) {
	if _, err := service(ts, args).waitFor(args[1]); err != nil {
		ts.Fatalf("waitlog %s: %v", args[1], err)
	}
}

// cmdLog writes the log of a process up to now into a file.
//
//	log name file
func cmdLog(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(service(ts, args).text()), 0o600))
}

// cmdCapture sets a variable to a match in the output of the last command.
//
//	capture variable pattern-with-a-group
func cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	m := re.FindStringSubmatch(ts.ReadFile("stdout"))
	if len(m) < 2 {
		ts.Fatalf("%s is not in the output", args[1])
	}
	ts.Setenv(args[0], m[1])
}

// cmdPatient adds a long request timeout to a configuration, for slow machines.
//
//	patient discharger.yaml
func cmdPatient(ts *testscript.TestScript, neg bool, args []string) {
	text := ts.ReadFile(args[0])
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text+patientSetting), 0o600))
}

// cmdNoSecrets looks for secrets where they must not be: those of the first
// file, which is a key file or a session file, in all others.
//
//	nosecrets keys.json file...
func cmdNoSecrets(ts *testscript.TestScript, neg bool, args []string) {
	var doc struct {
		Keys    []struct{ Secret string }
		Token   string `json:"refresh_token"`
		Bundle  string `json:"bundle"`
		Access  string `json:"access"`
		Request string `json:"request_id"`
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &doc))
	secrets := []string{doc.Token, doc.Bundle, doc.Access}
	for _, k := range doc.Keys {
		secrets = append(secrets, k.Secret)
	}
	found := 0
	for _, secret := range secrets {
		if secret == "" {
			continue
		}
		found++
		for _, name := range args[1:] {
			text := ts.ReadFile(name)
			// In another alphabet of base64 it is no less a secret.
			text = strings.NewReplacer("-", "+", "_", "/").Replace(text)
			secret = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(secret, "="))
			if strings.Contains(text, secret) {
				ts.Fatalf("%s shows a secret of %s", name, args[0])
			}
		}
	}
	if found == 0 {
		ts.Fatalf("there is no secret in %s", args[0])
	}
}

// cmdMode compares the mode of files.
//
//	mode 0600 file...
func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.ParseUint(args[0], 8, 32)
	ts.Check(err)
	for _, name := range args[1:] {
		info, err := os.Stat(ts.MkAbs(name))
		ts.Check(err)
		if info.Mode().Perm() != os.FileMode(want) {
			ts.Fatalf("%s has mode %04o, want %s", name, info.Mode().Perm(), args[0])
		}
	}
}

// cmdCut writes the first half of a file into another one.
//
//	cut from to
func cmdCut(ts *testscript.TestScript, neg bool, args []string) {
	b, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b[:len(b)/2], 0o600))
}

// cmdDamage flips a bit of one of the two roots of a bbolt file.
//
//	damage file
func cmdDamage(ts *testscript.TestScript, neg bool, args []string) {
	b, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	b[40] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}
