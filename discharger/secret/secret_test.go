package secret_test

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/secret"
)

var raw = secret.Key([]byte("Zq7-canary-of-32-bytes-in-a-test"))

// embedding is a secret type with an identity of its own.
type embedding struct{ secret.Key }

func TestSecretsAreRedacted(t *testing.T) {
	t.Parallel()
	key, text := raw, secret.Bytes(raw[:])
	for name, value := range map[string]any{
		"key": key, "pointer to key": &key, "bytes": text, "pointer to bytes": &text,
		"embedding": embedding{key}, "pointer to embedding": &embedding{key},
		"slice": []secret.Key{key}, "map": map[string]secret.Bytes{"k": text}, "any": []any{embedding{key}},
		"field": struct{ Field embedding }{embedding{key}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for how, got := range renderings(t, value) {
				for _, shown := range notations(raw[:8]) {
					if strings.Contains(strings.ToLower(got), strings.ToLower(shown)) {
						t.Errorf("%s shows the secret: %s", how, got)
					}
				}
				if !strings.Contains(got, secret.Redacted) {
					t.Errorf("%s is %q, without REDACTED", how, got)
				}
			}
		})
	}
}

// renderings returns a value in every verb and encoding.
func renderings(t *testing.T, value any) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%b", "%c", "%U", "%t"} {
		all[verb] = fmt.Sprintf(verb, value)
	}
	if s, ok := value.(interface {
		fmt.Stringer
		fmt.GoStringer
	}); ok {
		all["String"], all["GoString"] = s.String(), s.GoString()
	}
	encode := func(how string, data []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		all[how] = string(data)
	}
	data, err := json.Marshal(value)
	encode("JSON", data, err)
	if m, ok := value.(encoding.TextMarshaler); ok {
		data, err = m.MarshalText()
		encode("text", data, err)
		data, err = xml.Marshal(value)
		encode("XML", data, err)
	}
	var buf bytes.Buffer
	err = gob.NewEncoder(&buf).Encode(value)
	if _, isAny := value.([]any); !isAny { // gob requires registered types
		encode("gob", buf.Bytes(), err)
	}
	for how, handler := range map[string]func(*bytes.Buffer) slog.Handler{
		"slog text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"slog JSON": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var log bytes.Buffer
		slog.New(handler(&log)).Info("event", "value", value)
		all[how] = log.String()
	}
	return all
}

// notations returns bytes as a verb or an encoder could write them.
func notations(b []byte) []string {
	list := strings.Trim(fmt.Sprint(b), "[]")
	return []string{
		string(b), hex.EncodeToString(b), fmt.Sprintf("% x", b), base64.StdEncoding.EncodeToString(b)[:10], list,
		strings.ReplaceAll(list, " ", ","), strings.ReplaceAll(list, " ", ", "),
		strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", b), "[]byte{"), "}"),
		strings.Trim(fmt.Sprintf("%o", b), "[]"), strings.Trim(fmt.Sprintf("%b", b), "[]"),
	}
}

func TestParseKey(t *testing.T) {
	t.Parallel()
	key := secret.NewKey()
	if key == (secret.Key{}) || key == secret.NewKey() {
		t.Fatal("keys are not random")
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if got, err := secret.ParseKey(enc.EncodeToString(key[:])); err != nil || !got.Equal(key) {
			t.Errorf("%s is not read back: %v", enc.EncodeToString(key[:]), err)
		}
	}
	if got, err := secret.ParseKey(key.Encode()); err != nil || got != key {
		t.Errorf("Encode is not read back: %v", err)
	}
	text := raw.Encode()
	for name, bad := range map[string]string{
		"empty": "", "short": text[:40], "long": text + text, "line break": text[:43] + "\n",
		"unused bits": text[:42] + "1=", "other characters": "!" + text[1:],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := secret.ParseKey(bad); err == nil || got != (secret.Key{}) || strings.Contains(err.Error(), "WnE3") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestEqual(t *testing.T) {
	t.Parallel()
	other := raw
	other[31]++
	if !raw.Equal(raw) || raw.Equal(other) {
		t.Error("keys compare wrong")
	}
	text := secret.Bytes("hunter2")
	if !text.Equal(secret.Bytes("hunter2")) || text.Equal(secret.Bytes("hunter")) || text.Equal(nil) {
		t.Error("bytes compare wrong")
	}
}
