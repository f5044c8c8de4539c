package httpd

import (
	"testing"
)

func TestDialable(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		"127.0.0.1:1": "127.0.0.1:1",
		":1":          "127.0.0.1:1",
		"0.0.0.0:1":   "127.0.0.1:1",
		"[::]:1":      "127.0.0.1:1",
		"[::1]:1":     "[::1]:1",
		"localhost:1": "localhost:1",
	} {
		if got := Dialable(listen); got != want {
			t.Errorf("%s is reached at %s, want %s", listen, got, want)
		}
	}
}
