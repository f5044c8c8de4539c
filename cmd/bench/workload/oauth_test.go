package workload

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/discharger/discharger/cmd/bench/load"
)

// TestOAuthRefreshesWithTheLastToken also refuses an answer with the same token.
func TestOAuthRefreshesWithTheLastToken(t *testing.T) {
	t.Parallel()
	g := NewOAuth(1)
	for _, c := range []struct {
		request string // how the next one ends
		kind    load.Kind
		status  int
		body    string
		err     string
	}{
		{"client_id=bench", load.Activate, 200, `{"refresh_token":"a"}`, ""},
		{"refresh_token=a", load.Discharge, 200, `{"access_token":"x","refresh_token":"b","token_type":"bearer"}`, ""},
		{"refresh_token=b", load.Discharge, 200, `{"refresh_token":"b"}`, "not a new one"},
		{"refresh_token=b", load.Discharge, 200, `{"refresh_token":""}`, "no refresh token"},
		{"refresh_token=b", load.Discharge, 200, `{"refresh_token":"c`, "no refresh token"},
		{"refresh_token=b", load.Discharge, 200, `{"access_token":"x"}`, "no refresh token"},
		{"refresh_token=b", load.Discharge, 400, `{"error":"invalid_grant"}`, "status 400"},
		{"refresh_token=b", load.Discharge, 200, `{"refresh_token":"c"}`, ""},
		{"refresh_token=c", load.Discharge, 200, `{"refresh_token":"d"}`, ""},
	} {
		t.Run(c.request+" "+c.body, func(t *testing.T) {
			request, k, err := g.Next(nil)
			if err != nil || k != c.kind || !strings.HasSuffix(string(request), c.request) {
				t.Errorf("%s: %q, %v, %v", c.request, request, k, err)
			}
			err = g.Answered(c.status, []byte(c.body))
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %q", c.body, err, c.err)
			}
		})
	}
}

func TestCheckRotation(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		again int // the status of an answer to a token that was used
		fresh int // how often there is a new token
		err   string
	}{
		{"once", http.StatusBadRequest, 3, ""},
		{"reusable", http.StatusOK, 3, "status 200 instead of 400"},
		{"broken", http.StatusInternalServerError, 3, "status 500 instead of 400"},
		{"not replaced", http.StatusBadRequest, 2, "not a new one"},
	} {
		t.Run(c.name, func(t *testing.T) {
			given, used := 0, make(map[string]bool)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				token := r.PostFormValue("refresh_token")
				if used[token] {
					w.WriteHeader(c.again)
				}
				if given < c.fresh {
					given++
					used[token] = token != ""
				}
				fmt.Fprintf(w, `{"refresh_token":"%d"}`, given)
			}))
			err := CheckRotation(t.Context(), strings.TrimPrefix(server.URL, "http://"))
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %q", c.name, err, c.err)
			}
			server.Close()
		})
	}
}
