package rules_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/policy"
	"github.com/discharger/discharger/policy/rules"
)

// reloads collects the reports of a reloader.
type reloads struct {
	mu   sync.Mutex
	seen []string
}

func (r *reloads) Reloaded(hash string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.seen = append(r.seen, "failed: "+err.Error())
		return
	}
	r.seen = append(r.seen, hash)
}

// take returns the reports since the last call.
func (r *reloads) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.seen
	r.seen = nil
	return seen
}

// effectOf returns a file whose policy p has this decision.
func effectOf(effect string) string {
	return "version: 1\npolicies:\n  p: {otherwise: " + effect + "}\n"
}

func newReloader(t testing.TB, text string, require ...string) (*rules.Reloader, *reloads, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "p.yaml")
	write(t, file, text)
	seen := &reloads{}
	r, err := rules.NewReloader(rules.ReloaderConfig{
		Load:     rules.Config{Files: []string{file}, OnlyFiles: true},
		Require:  require,
		Reloaded: seen.Reloaded,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r, seen, file
}

func decides(t testing.TB, e policy.Evaluator) policy.Effect {
	t.Helper()
	in := policy.SampleInput()
	in.Policy = "p"
	d, err := e.Evaluate(context.Background(), in)
	if err != nil {
		t.Error(err)
	}
	return d.Effect
}

func TestReload(t *testing.T) {
	t.Parallel()
	r, seen, file := newReloader(t, effectOf("deny"), "p")
	first := r.Current().Hash()
	if got := seen.take(); len(got) != 1 || got[0] != first || decides(t, r) != policy.EffectDeny {
		t.Errorf("at first: %v", got)
	}
	write(t, file, effectOf("revoke"))
	if err := r.Reload(); err != nil || decides(t, r) != policy.EffectRevoke || r.Current().Hash() == first {
		t.Errorf("after a change: %v", err)
	}
	second := r.Current().Hash()
	for name, bad := range map[string]string{
		"does not compile":      effectOf("alow"),
		"fails its tests":       effectOf("{effect: deny}, tests: [{name: t, expect: allow}]"),
		"lacks a policy":        "version: 1\npolicies:\n  q: {otherwise: allow}\n",
		"is empty":              "",
		"is half of a good one": effectOf("allow")[:20],
	} {
		t.Run(name, func(t *testing.T) {
			seen.take()
			write(t, file, bad)
			err := r.Reload()
			if err == nil || decides(t, r) != policy.EffectRevoke || r.Current().Hash() != second || !r.Has("p") {
				t.Error(err)
			}
			if got := seen.take(); len(got) != 1 || !strings.HasPrefix(got[0], "failed: ") {
				t.Errorf("reports %v", got)
			}
		})
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := r.Reload(); !errors.Is(err, os.ErrNotExist) || decides(t, r) != policy.EffectRevoke {
		t.Errorf("without the file: %v", err)
	}
	if _, err := rules.NewReloader(rules.ReloaderConfig{Load: rules.Config{Files: []string{file}}}); err == nil {
		t.Error("reloader created without its file")
	}
	if _, err := rules.NewReloader(rules.ReloaderConfig{Require: []string{"mine"}}); !errors.Is(err, rules.ErrUnknownPolicy) {
		t.Errorf("reloader created without a required policy: %v", err)
	}
}

func TestReloadOnChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, seen, file := newReloader(t, effectOf("deny"))
		seen.take()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		done := make(chan struct{})
		go func() { r.Run(ctx); close(done) }()
		pass := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		expect := func(what string, reports int, effect policy.Effect) {
			t.Helper()
			if got := seen.take(); len(got) != reports || decides(t, r) != effect {
				t.Errorf("%s: reports %v, decides %s", what, got, decides(t, r))
			}
		}
		pass(10*time.Second + time.Millisecond) // between two looks
		expect("nothing changed", 0, policy.EffectDeny)

		write(t, file, effectOf("revoke"))
		pass(time.Second)
		expect("seen once", 0, policy.EffectDeny)
		pass(time.Second)
		expect("seen twice", 1, policy.EffectRevoke)

		for i := range 5 { // still being written
			write(t, file, effectOf("allow")+strings.Repeat("#", i))
			pass(time.Second)
			expect("being written", 0, policy.EffectRevoke)
		}
		pass(2 * time.Second)
		expect("written", 1, policy.EffectAllow)

		write(t, file, effectOf("alow"))
		pass(10 * time.Second)
		expect("broken is tried once", 1, policy.EffectAllow)
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		expect("missing is tried once", 1, policy.EffectAllow)

		// Kubernetes replaces a file behind a link.
		other := filepath.Join(t.TempDir(), "other.yaml")
		write(t, other, effectOf("deny"))
		if err := os.Symlink(other, file); err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Second)
		expect("linked", 1, policy.EffectDeny)
		cancel()
		<-done
	})
}

// TestReloadOfKeys changes the key of a webhook.
func TestReloadOfKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "key"), hookKey)
		write(t, filepath.Join(dir, "p.yaml"), "version: 1\nwebhooks: {w: {url: 'https://x.org/', secret_file: key}}\npolicies: {p: {otherwise: {webhook: w}}}\n")
		seen := &reloads{}
		r, err := rules.NewReloader(rules.ReloaderConfig{Load: rules.Config{Files: []string{filepath.Join(dir, "p.yaml")}, OnlyFiles: true}, Reloaded: seen.Reloaded})
		if err != nil {
			t.Fatal(err)
		}
		seen.take()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.Run(ctx)
		write(t, filepath.Join(dir, "key"), "a new key that is long enough to be one")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := seen.take(); len(got) != 1 || strings.HasPrefix(got[0], "failed") {
			t.Errorf("a new key is reported as %v", got)
		}
		cancel()
		synctest.Wait()
	})
}

// TestReloadUnderLoad reloads during decisions; each is made by one
// of the two sets.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	text := func(effect, code string) string {
		return "version: 1\npolicies:\n  p:\n    rules:\n      - {name: " + code + ", when: session.epoch > 3, then: {effect: " + effect + ", code: " + code + "}}\n    otherwise: defer\n"
	}
	r, _, file := newReloader(t, text("deny", "one"))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			in := policy.SampleInput()
			in.Policy = "p"
			for {
				select {
				case <-stop:
					return
				default:
				}
				d, err := r.Evaluate(context.Background(), in)
				if err != nil || d.Code == "" || d.Rule != "p/"+d.Code || (d.Code == "one") != (d.Effect == policy.EffectDeny) {
					t.Errorf("%+v, %v", d, err)
					return
				}
			}
		})
	}
	for i := range 30 {
		next := text("deny", "one")
		if i%2 == 0 {
			next = text("revoke", "two")
		}
		write(t, file, next)
		if err := r.Reload(); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}

// TestReloadBeforeCounting loads rules that read user.sessions after the input was
// made.
func TestReloadBeforeCounting(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "p.yaml")
	write(t, file, effectOf("deny"))
	r, err := rules.NewReloader(rules.ReloaderConfig{Load: rules.Config{Files: []string{file}, OnlyFiles: true}})
	if err != nil {
		t.Fatal(err)
	}
	in := policy.SampleInput()
	in.Policy, in.User.Sessions, in.Counter = "p", -1, &counter{}
	if d, err := r.Evaluate(t.Context(), in); err != nil || d.Effect != policy.EffectDeny {
		t.Errorf("before: %+v, %v", d, err)
	}
	write(t, file, "version: 1\npolicies:\n  p: {rules: [{name: r, when: user.sessions > 1, then: revoke}], otherwise: allow}\n")
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if d, err := r.Evaluate(t.Context(), in); err != nil || d.Effect != policy.EffectRevoke || in.User.Sessions != 5 {
		t.Errorf("after: %+v, %v, %d sessions", d, err, in.User.Sessions)
	}
	in.User.Sessions, in.Counter = -1, nil
	if d, err := r.Evaluate(t.Context(), in); err == nil {
		t.Errorf("without a counter: %+v", d)
	}
}
