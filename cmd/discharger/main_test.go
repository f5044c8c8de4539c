package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/discharger/discharger/discharger/testkit"
)

// The test binary is the program too, when it is run under its name.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"discharger": main})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Condition:           func(program string) (bool, error) { return testkit.Has(program), nil },
		Setup: func(e *testscript.Env) error {
			e.Values[servicesKey{}] = make(map[string]*process)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exit":      cmdExit,
			"serve":     cmdServe,
			"redis":     cmdRedis,
			"again":     cmdAgain,
			"signal":    cmdSignal,
			"end":       cmdEnd,
			"waitlog":   cmdWaitLog,
			"log":       cmdLog,
			"capture":   cmdCapture,
			"patient":   cmdPatient,
			"nosecrets": cmdNoSecrets,
			"mode":      cmdMode,
			"cut":       cmdCut,
			"damage":    cmdDamage,
		},
	})
}
