package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/unit"

	"github.com/discharger/discharger/cmd/discharger/httpd"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/testkit"
)

// unitFile reads a systemd unit: its options by section and name.
func unitFile(t *testing.T, file string) map[string][]string {
	t.Helper()
	f, err := os.Open(file)
	testkit.NoError(t, err)
	defer f.Close()
	options, err := unit.DeserializeOptions(f)
	testkit.NoError(t, err)
	all := make(map[string][]string)
	for _, o := range options {
		all[o.Section+"."+o.Name] = append(all[o.Section+"."+o.Name], o.Value)
	}
	return all
}

func units(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "deploy", pattern))
	testkit.NoError(t, err)
	if len(files) == 0 {
		t.Fatalf("no unit is called %s", pattern)
	}
	return files
}

// The services are notified of, start again for ever with a pause, and run commands
// that exist.
func TestServiceUnits(t *testing.T) {
	t.Parallel()
	for _, file := range units(t, "*.service") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			u := unitFile(t, file)
			for option, want := range map[string]string{
				"Service.Type": "notify", "Service.Restart": "always", "Service.RestartSec": "5", "Unit.StartLimitIntervalSec": "0",
				"Service.ExecReload": "/bin/kill -HUP $MAINPID",
			} {
				if got := u[option]; !slices.Equal(got, []string{want}) {
					t.Errorf("%s is %q, want %q", option, got, want)
				}
			}
			if prevent := u["Service.RestartPreventExitStatus"]; prevent != nil {
				t.Errorf("it does not start again after %q", prevent)
			}
			start := strings.Fields(u["Service.ExecStart"][0])[1:]
			if c, _, err := program().Tree(testTerminal(new(bytes.Buffer))).Find(start); err != nil || !c.HasParent() {
				t.Errorf("no command %q: %v", start, err)
			}
		})
	}
}

// Every socket has a name of the program, the address that is the default,
// and a service that is there.
func TestSocketUnits(t *testing.T) {
	t.Parallel()
	o := config.Options{LookupEnv: func(string) (string, bool) { return "", false }}
	o.File = filepath.Join(t.TempDir(), "discharger.yaml")
	testkit.NoError(t, os.WriteFile(o.File, []byte("gateway: {upstream: \"http://127.0.0.1:8008\"}\n"), 0o600))
	cfg, err := config.Load(o)
	testkit.NoError(t, err)
	addresses := map[string]string{httpd.SocketClient: cfg.Listen, httpd.SocketAdmin: cfg.AdminListen, httpd.SocketGateway: cfg.Gateway.Listen}
	files := units(t, "*.socket")
	if len(files) != len(addresses) {
		t.Errorf("units %q, want one for each of %v", files, addresses)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			u := unitFile(t, file)
			name := u["Socket.FileDescriptorName"][0]
			if filepath.Base(file) != "discharger-"+name+".socket" || !slices.Equal(u["Socket.ListenStream"], []string{addresses[name]}) {
				t.Errorf("socket %s is at %q", name, u["Socket.ListenStream"])
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), u["Socket.Service"][0])); err != nil {
				t.Error(err)
			}
		})
	}
}
