package homeserver

import (
	"context"
	"sync"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
)

// After a reload the new keys count, and cached bundles of a key that was taken out
// are forgotten.
func TestReload(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	first, second := w.cfg.Keys[0], testKey(t, 3)
	old := w.bundle(t, caveat.ModeOpen)
	w.accepted(t, old, someClient)

	cfg := w.cfg
	cfg.Keys = Keys{second, first}
	if err := w.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	w.accepted(t, old, someClient)
	fresh := w.bundle(t, caveat.ModeOpen)
	w.accepted(t, fresh, someClient)

	cfg.Keys = Keys{second}
	if err := w.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	w.refused(t, old, someClient, ErrUnknownKey)
	w.accepted(t, fresh, someClient)
}

// A key that cannot be used leaves all keys as they are.
func TestReloadRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	text := w.bundle(t, caveat.ModeOpen)
	for name, edit := range map[string]func(*Config){
		"no master key":   func(c *Config) { c.Keys = nil },
		"twice":           func(c *Config) { c.Keys = Keys{testKey(t, 4), testKey(t, 4)} },
		"zero":            func(c *Config) { c.Keys = Keys{{}} },
		"weak discharger": func(c *Config) { c.Keys, c.Discharger = Keys{testKey(t, 4)}, caveat.PublicKey{} },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := w.cfg
			edit(&cfg)
			if err := w.Reload(cfg); err == nil {
				t.Fatal("reloaded")
			}
			w.accepted(t, text, someClient)
		})
	}
}

// A bundle of a key that stays is never refused while keys change.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	text, first := w.bundle(t, caveat.ModeOpen), w.cfg.Keys[0]
	done := make(chan struct{})
	var verifiers sync.WaitGroup
	for range 4 {
		verifiers.Go(func() {
			for {
				if _, err := w.Verify(context.Background(), text, someClient); err != nil {
					t.Errorf("refused: %v", err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for i := range byte(50) {
		cfg := w.cfg
		cfg.Keys = Keys{testKey(t, 10+i), first}
		if err := w.Reload(cfg); err != nil {
			t.Error(err)
		}
	}
	close(done)
	verifiers.Wait()
}
