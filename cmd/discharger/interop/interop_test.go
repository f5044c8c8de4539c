//go:build interop

package interop

import (
	"fmt"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
)

// suites run against every store, concurrently. Each uses sessions of its own.
var suites = []struct {
	name string
	run  func(*testing.T, *world)
}{
	{"go", testGo},
	{"go-token", testGoStolenToken},
	{"go-bakeryclient", testGoBakeryClient},
	{"go-everywhere", testGoEverywhere},
	{"go-held", testGoHeld},
	{"go-stranger", testGoStranger},
	{"go-target", testGoTarget},
	{"python", testPython},
	{"python-target", testPythonTarget},
	{"python-homeserver", testPythonHomeserver},
	{"javascript", testJavaScript},
	{"javascript-target", testJavaScriptTarget},
	{"verify", testVerify},
	{"wire", testWire},
}

func TestInterop(t *testing.T) {
	kit := assemble(t)
	for name, start := range map[string]func(*testing.T) store{"bolt": bolt, "redis": redis} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			w := newWorld(t, kit, s)
			t.Run("running", func(t *testing.T) {
				for _, suite := range suites {
					t.Run(suite.name, func(t *testing.T) {
						t.Parallel()
						suite.run(t, w)
					})
				}
			})
			t.Run("restarted", func(t *testing.T) { testRestart(t, w) })
			// The tests would prove nothing if the sessions were elsewhere.
			if !s.holds(t, w.service) {
				t.Error("the store holds no sessions")
			}
		})
	}
}

// flow is the life of one session with one client.
type flow struct {
	issuer  issuer
	version caveat.Version
	mode    caveat.Mode
}

func (f flow) String() string { return fmt.Sprintf("%s/V%d/%s", f.issuer.name(), f.version, f.mode) }

// eachFlow runs a test for every homeserver and version, in the modes that need no
// API key.
func eachFlow(t *testing.T, w *world, test func(*testing.T, flow)) {
	for _, i := range []issuer{w.stock, w.ours} {
		for version := caveat.V1; version <= caveat.V3; version++ {
			for _, mode := range []caveat.Mode{caveat.ModeOpen, caveat.ModeRotate} {
				f := flow{i, version, mode}
				t.Run(f.String(), func(t *testing.T) {
					t.Parallel()
					test(t, f)
				})
			}
		}
	}
}
