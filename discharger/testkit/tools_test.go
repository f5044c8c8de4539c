package testkit

import (
	"strings"
	"testing"
)

// fakeTest records how a test ended.
type fakeTest struct {
	testing.TB
	ended string
}

// end keeps the first call: the real ones do not return.
func (f *fakeTest) end(how string) {
	if f.ended == "" {
		f.ended = how
	}
}

func (f *fakeTest) Helper()               {}
func (f *fakeTest) Skipf(string, ...any)  { f.end("skipped") }
func (f *fakeTest) Fatalf(string, ...any) { f.end("failed") }

func TestNeed(t *testing.T) {
	for _, tt := range []struct {
		name, program, all, want string
	}{
		{"installed", "go", "", ""},
		{"installed, all required", "go", "1", ""},
		{"missing", "no-such-program", "", "skipped"},
		{"missing, all required", "no-such-program", "1", "failed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(AllVariable, tt.all)
			f := &fakeTest{TB: t}
			Need(f, tt.program)
			if f.ended != tt.want {
				t.Errorf("test is %q, want %q", f.ended, tt.want)
			}
			if has := Has(tt.program); has != (tt.want != "skipped") {
				t.Errorf("Has is %v", has)
			}
		})
	}
}

func TestLeftOut(t *testing.T) {
	t.Setenv("PATH", "")
	if missing := LeftOut(); !strings.Contains(missing, "redis-server: the store in Redis") {
		t.Errorf("left out:\n%s", missing)
	}
}
