package measure

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestGranted refreshes with what was answered last, and takes no token twice.
func TestGranted(t *testing.T) {
	t.Parallel()
	g := &granted{tokens: make([]string, 1)}
	for _, c := range []struct {
		request string // how the next one ends
		kind    kind
		status  int
		body    string
		err     string
	}{
		{"client_id=bench", kindActivate, 200, `{"refresh_token":"a"}`, ""},
		{"refresh_token=a", kindDischarge, 200, `{"access_token":"x","refresh_token":"b","token_type":"bearer"}`, ""},
		{"refresh_token=b", kindDischarge, 200, `{"refresh_token":"b"}`, "not a new one"},
		{"refresh_token=b", kindDischarge, 200, `{"refresh_token":""}`, "no refresh token"},
		{"refresh_token=b", kindDischarge, 200, `{"refresh_token":"c`, "no refresh token"},
		{"refresh_token=b", kindDischarge, 200, `{"access_token":"x"}`, "no refresh token"},
		{"refresh_token=b", kindDischarge, 400, `{"error":"invalid_grant"}`, "status 400"},
		{"refresh_token=b", kindDischarge, 200, `{"refresh_token":"c"}`, ""},
		{"refresh_token=c", kindDischarge, 200, `{"refresh_token":"d"}`, ""},
	} {
		request, k, err := g.next(nil)
		if err != nil || k != c.kind || !strings.HasSuffix(string(request), c.request) {
			t.Errorf("%s: %q, %v, %v", c.request, request, k, err)
		}
		err = g.answered(c.status, []byte(c.body))
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v, want %q", c.body, err, c.err)
		}
	}
}

// TestRotates tells a server that takes a refresh token once from others.
func TestRotates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		again int // the status of an answer to a token that was used
		news  int // how often there is a new token
		err   string
	}{
		{"once", http.StatusBadRequest, 3, ""},
		{"for ever", http.StatusOK, 3, "status 200 instead of 400"},
		{"broken", http.StatusInternalServerError, 3, "status 500 instead of 400"},
		{"not replaced", http.StatusBadRequest, 2, "not a new one"},
	} {
		given, used := 0, make(map[string]bool)
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token := r.PostFormValue("refresh_token")
			if used[token] {
				w.WriteHeader(c.again)
			}
			if given < c.news {
				given++
				used[token] = token != ""
			}
			fmt.Fprintf(w, `{"refresh_token":"%d"}`, given)
		}))
		err := rotates(t.Context(), strings.TrimPrefix(server.URL, "http://"))
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v, want %q", c.name, err, c.err)
		}
		server.Close()
	}
}
