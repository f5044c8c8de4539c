//go:build interop

package interop

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/wire"
)

// clientTask is the task of a script that is a client.
type clientTask struct {
	Access json.RawMessage `json:"access"`
	Mode   string          `json:"mode"`
	Logout string          `json:"logout"` // URL
}

// targetTask is the task of a script that visits a target.
type targetTask struct {
	Account   string `json:"account"`    // URL
	Expire    string `json:"expire"`     // URL
	Logout    string `json:"logout"`     // URL
	LogoutFor string `json:"logout_for"` // the form that ends the session
}

func newTargetTask(t *testing.T, w *world, tg *target) targetTask {
	t.Helper()
	return targetTask{
		Account:   tg.URL + pathAccount,
		Expire:    tg.URL + pathExpire,
		Logout:    w.service.url + wire.PathLogout,
		LogoutFor: tg.login.params(t).Encode(),
	}
}

// client runs the common sequence in a script, for each flow.
func (w *world) client(t *testing.T, name string, play func(*testing.T, any) []step, error string) {
	eachFlow(t, w, func(t *testing.T, f flow) {
		l := f.issuer.login(t, f.user(name), f.version, f.mode)
		others := w.bystanders(t, f.issuer, l)
		last := f.played(t, l, play(t, clientTask{l.access, f.mode.String(), w.service.url + wire.PathLogout}))
		refusedInLibrary(t, last, error, f.mode)
		a := answer{status: last.Status, contentType: last.ContentType, body: last.Body}
		if e := a.refusal(t); a.status != http.StatusUnauthorized || a.contentType != wire.ContentType ||
			e.Code != wire.CodePermissionDenied || e.Info == nil || e.Info.Reason != wire.ReasonSessionEnded {
			t.Errorf("the client was answered %s", a)
		}
		w.loggedOut(t, l, "")
		others.live(t, w)
	})
}

// target runs a script that visits a target: twice with each of three discharges, and
// once after the logout.
func (w *world) target(t *testing.T, name string, play func(*testing.T, any) []step, error string) {
	tg := newTarget(t, w.stock, "@"+name+"-target:stock")
	others := w.bystanders(t, w.stock, tg.login)
	steps := play(t, newTargetTask(t, w, tg))
	if len(steps) != 8 {
		t.Fatalf("%d steps, want 8: %+v", len(steps), steps)
	}
	for n, s := range steps[:6] {
		if s.Name != "visited" || s.Status != http.StatusOK || s.Body != welcome {
			t.Errorf("step %d: %+v", n, s)
		}
	}
	if s := steps[6]; s.Name != "logged-out" || s.Status != http.StatusOK {
		t.Errorf("logout: %+v", s)
	}
	refusedInLibrary(t, steps[7], error, caveat.ModeOpen)
	w.loggedOut(t, tg.login, "")
	others.live(t, w)
}

// refusedInLibrary checks that the error of a client's library is its error for
// refusals, with the service's message.
func refusedInLibrary(t *testing.T, s step, error string, mode caveat.Mode) {
	t.Helper()
	message := "this session has ended"
	if mode == caveat.ModeRotate && error == pythonError {
		message = "this session is refreshed with a refresh token" // which the stock client lacks
	}
	if s.Name != "refused" || s.Error != error || !strings.Contains(s.Message, message) {
		t.Errorf("error of the client: %s: %q, want %s with %q", s.Error, s.Message, error, message)
	}
}

// pythonError is the exception of the Python client.
const pythonError = "DischargeError"

func testPython(t *testing.T, w *world) {
	w.client(t, "python", func(t *testing.T, task any) []step { return w.kit.python(t, "client.py", task) }, pythonError)
}

func testPythonTarget(t *testing.T, w *world) {
	w.target(t, "python", func(t *testing.T, task any) []step { return w.kit.python(t, "target.py", task) }, pythonError)
}

// testPythonHomeserver mints and verifies in Python, with a client in Python too: only
// the service is Go.
func testPythonHomeserver(t *testing.T, w *world) {
	for version := caveat.V1; version <= caveat.V3; version++ {
		for _, mode := range []caveat.Mode{caveat.ModeOpen, caveat.ModeRotate} {
			f := flow{w.python, version, mode}
			t.Run(f.String(), func(t *testing.T) {
				t.Parallel()
				l := w.python.login(t, f.user("py"), version, mode)
				others := w.bystanders(t, w.python, l)
				condition, err := l.condition.Encode()
				if err != nil {
					t.Fatal(err)
				}
				private, err := w.python.key.Private.MarshalText()
				if err != nil {
					t.Fatal(err)
				}
				steps := w.kit.python(t, "homeserver.py", struct {
					Service   string `json:"service"`
					Key       string `json:"key"`
					Version   int    `json:"version"`
					Condition string `json:"condition"`
					Mode      string `json:"mode"`
				}{w.service.url, string(private), int(version), condition, mode.String()})
				checkHomeserver(t, mode, steps)
				w.loggedOut(t, l, "")
				others.live(t, w)
			})
		}
	}
}

// checkHomeserver checks the steps of a script that is homeserver and client.
func checkHomeserver(t *testing.T, mode caveat.Mode, steps []step) {
	t.Helper()
	want := []string{"bare", "accepted", "expired", "accepted", "expired", "accepted", "expired", "logged-out", "refused"}
	if len(steps) != len(want) {
		t.Fatalf("%d steps, want %v: %+v", len(steps), want, steps)
	}
	epochs := []string{"", "", ""}
	if mode == caveat.ModeRotate {
		epochs = []string{"1", "2", "3"}
	}
	for n, s := range steps {
		switch {
		case s.Name != want[n]:
			t.Fatalf("step %d is %+v, want %s", n, s, want[n])
		case s.Name == "accepted":
			if !s.OK || len(s.Conditions) != 1 || s.Conditions[0] != epochs[0] {
				t.Errorf("step %d: %+v, want epoch %q", n, s, epochs[0])
			}
			epochs = epochs[1:]
		case s.Name == "expired" || s.Name == "bare":
			if s.OK {
				t.Errorf("step %d: accepted: %+v", n, s)
			}
		case s.Name == "logged-out":
			if s.Status != http.StatusOK {
				t.Errorf("logout: %+v", s)
			}
		default:
			refusedInLibrary(t, s, pythonError, mode)
		}
	}
}
