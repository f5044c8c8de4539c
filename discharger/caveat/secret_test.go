package caveat

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/crypto/nacl/box"
)

// However they are printed, keys and root keys do not show.
func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	opened, err := w.opener.Open(w.seal(t, V2))
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := NewSealer(SealerConfig{Version: V2, Homeserver: w.homeserver, Discharger: w.discharger.Public})
	if err != nil {
		t.Fatal(err)
	}
	var shared [keySize]byte
	box.Precompute(&shared, (*[keySize]byte)(&w.homeserver.Public), (*[keySize]byte)(&w.discharger.Private.Key))

	for name, value := range map[string]any{
		"private key":   w.discharger.Private,
		"root key":      opened.RootKey,
		"pair":          w.discharger,
		"pointer":       &w.discharger,
		"opened":        opened,
		"opener":        w.opener,
		"opener value":  *w.opener,
		"opener config": OpenerConfig{Keys: []KeyPair{w.discharger}},
		"sealer":        sealer,
		"sealer config": SealerConfig{Homeserver: w.homeserver},
		"hidden fields": struct {
			opener *Opener
			sealer *Sealer
			values [2]any
		}{w.opener, sealer, [2]any{*w.opener, *sealer}},
		"seal params": SealParams{Homeserver: w.homeserver, RootKey: testRootKey},
	} {
		t.Run(name, func(t *testing.T) {
			for _, text := range renderings(t, value) {
				for secret, raw := range map[string][]byte{
					"discharger's key": w.discharger.Private.Key[:],
					"homeserver's key": w.homeserver.Private.Key[:],
					"root key":         testRootKey,
					"shared key":       shared[:],
				} {
					if shows(text, raw) {
						t.Errorf("shows the %s: %s", secret, text)
					}
				}
			}
		})
	}
	for _, value := range []any{w.discharger.Private, opened.RootKey} {
		for _, text := range renderings(t, value) {
			if !strings.Contains(text, "REDACTED") {
				t.Errorf("%T prints as %q", value, text)
			}
		}
	}
}

// renderings are all the ways in which a value ends up in a log.
func renderings(t *testing.T, value any) []string {
	t.Helper()
	var all []string
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%b", "%c", "%U"} {
		all = append(all, fmt.Sprintf(verb, value))
	}
	if s, ok := value.(fmt.Stringer); ok {
		all = append(all, s.String())
	}
	if s, ok := value.(fmt.GoStringer); ok {
		all = append(all, s.GoString())
	}
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "value", value)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "value", value)
	return append(all, string(data), log.String())
}

// shows reports whether text has the first bytes of a secret, in any of the
// notations.
func shows(text string, secret []byte) bool {
	part := secret[:8]
	for _, notation := range []string{
		string(part), hex.EncodeToString(part), fmt.Sprintf("%X", part), fmt.Sprintf("% x", part),
		base64.StdEncoding.EncodeToString(part)[:8], strings.Trim(fmt.Sprint(part), "[]"),
		strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", part), "[]byte{"), "}"),
		strings.Trim(fmt.Sprintf("%o", part), "[]"), strings.Trim(fmt.Sprintf("%b", part), "[]"),
		strings.Trim(strings.ReplaceAll(fmt.Sprint(part), " ", ","), "[]"),
	} {
		if strings.Contains(text, notation) {
			return true
		}
	}
	return false
}
