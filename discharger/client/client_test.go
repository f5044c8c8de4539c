package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/discharger/wire"
)

func TestDischarge(t *testing.T) {
	t.Parallel()
	for _, version := range []caveat.Version{caveat.V1, caveat.V2, caveat.V3} {
		t.Run(fmt.Sprint("V", version), func(t *testing.T) {
			svc := newService(t)
			access := svc.mint(t, version)
			grant, err := svc.client(t, nil).Discharge(context.Background(), Request{Access: access})
			if err != nil {
				t.Fatal(err)
			}
			bundle, err := grant.Bundle()
			if err != nil {
				t.Fatal(err)
			}
			if got := epochOf(t, bundle); got != 1 {
				t.Errorf("V%d: epoch %d", version, got)
			}
			if left := time.Until(grant.Expires); left <= 4*time.Minute || left > 5*time.Minute {
				t.Errorf("V%d: expires in %v", version, left)
			}
			if _, err := ParseRefreshToken(string(grant.Token)); err != nil {
				t.Errorf("V%d: %v", version, err)
			}
			s := grant.Macaroons()
			if s[1].Equal(grant.Discharge) || !s[0].Equal(access.Macaroon) {
				t.Errorf("V%d: not bound, or the access macaroon has changed", version)
			}
			if !json.Valid(grant.JSON()) {
				t.Errorf("V%d: the answer as it was is not JSON", version)
			}
		})
	}
}

func TestDischargeRequest(t *testing.T) {
	t.Parallel()
	svc := newService(t)
	access := svc.mint(t, caveat.V3)
	r := Request{Access: access, RequestID: "first", ClientIP: netip.MustParseAddr("::ffff:192.0.2.7"), UserAgent: "Element"}
	first, err := svc.client(t, nil).Discharge(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	r.Token, r.RequestID = first.Token, ""
	keyed := svc.client(t, func(c *Config) { c.APIKey, c.UserAgent = secret.Bytes("key"), "gateway" })
	if _, err := keyed.Discharge(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	id, external := wire.EncodeBase64([]byte{3, 0}), wire.EncodeBase64(access.External["\x03\x00"])
	if got, want := svc.requests[0].Encode(), (url.Values{"id64": {id}, "caveat64": {external}, "request-id": {"first"}}).Encode(); got != want {
		t.Errorf("first request is %s, want %s", got, want)
	}
	drawn := svc.requests[1].Get(wire.ParamRequestID)
	if data, err := wire.DecodeBase64(drawn); err != nil || len(data) != 16 {
		t.Errorf("request-id %q", drawn)
	}
	want := url.Values{
		"id64": {id}, "caveat64": {external}, "request-id": {drawn}, "token64": {string(first.Token)}, "token-kind": {"refresh"},
		"client-ip": {"192.0.2.7"}, "user-agent": {"Element"},
	}
	if got := svc.requests[1].Encode(); got != want.Encode() {
		t.Errorf("second request is %s, want %s", got, want.Encode())
	}
	for i, want := range []struct{ authorization, agent string }{{"", ""}, {"Bearer key", "gateway"}} {
		t.Run(fmt.Sprint("agent ", want.agent), func(t *testing.T) {
			h := svc.headers[i]
			if h.Get("Authorization") != want.authorization || h.Get("User-Agent") != want.agent || h.Get("Bakery-Protocol-Version") != "3" || h.Get("Content-Type") != wire.ContentTypeForm {
				t.Errorf("headers of request %d: %v", i, h)
			}
		})
	}
}

// An answer counts by status, media type and code together: anything else than the
// service could have sent the rest.
func TestAnswers(t *testing.T) {
	t.Parallel()
	const denied = `{"Code":"permission denied","Message":"gone","Info":{"Reason":"session_ended","SoftLogout":true}}`
	json := wire.ContentType
	for _, tc := range []struct {
		name   string
		answer func() *http.Response
		want   error
		retry  time.Duration
	}{
		{"refused", answer(401, json, denied), ErrRefused, 0},
		{"refused, with charset", answer(401, json+"; charset=utf-8", denied), ErrRefused, 0},
		{"refused by a plain bakery", answer(401, json, `{"Code":"permission denied","Message":"no"}`), ErrRefused, 0},
		{"401 in HTML", answer(401, "text/html", "<h1>Log in</h1>"), ErrUnavailable, 0},
		{"401 in HTML that is JSON", answer(401, "text/html", denied), ErrUnavailable, 0},
		{"401 of another protocol", answer(401, json, `{"errcode":"M_UNKNOWN_TOKEN"}`), ErrUnavailable, 0},
		{"401 for the API key", answer(401, json, `{"Code":"unauthorized","Message":"no"}`), ErrBadRequest, 0},
		{"401 with a code of 503", answer(401, json, `{"Code":"unavailable"}`), ErrUnavailable, 0},
		{"403 with code denied", answer(403, json, denied), ErrUnavailable, 0},
		{"503 with code denied", answer(503, json, denied), ErrUnavailable, 0},
		{"200 with code denied", answer(200, json, denied), ErrUnavailable, 0},
		{"bad request", answer(400, json, `{"Code":"bad request","Message":"no"}`), ErrBadRequest, 0},
		{"400 by another", answer(400, json, `{}`), ErrUnavailable, 0},
		{"400 in HTML", answer(400, "text/html", "<h1>Bad request</h1>"), ErrUnavailable, 0},
		{"too large", answer(413, json, `{"Code":"request too large"}`), ErrBadRequest, 0},
		{"wrong path", answer(404, json, `{"Code":"not found"}`), ErrBadRequest, 0},
		{"404 by another", answer(404, "text/plain", "404 page not found"), ErrUnavailable, 0},
		{"method", answer(405, json, `{"Code":"method not allowed"}`), ErrBadRequest, 0},
		{"redirect", answer(302, "text/html", "", "Location", "https://evil.example/"), ErrUnavailable, 0},
		{"too many", answer(429, json, `{"Code":"too many requests"}`, "Retry-After", "7"), ErrUnavailable, 7 * time.Second},
		{"unavailable", answer(503, json, `{"Code":"unavailable"}`, "Retry-After", "3"), ErrUnavailable, 3 * time.Second},
		{"unavailable in HTML", answer(502, "text/html", "", "Retry-After", "Sat, 01 Jan 2000 00:01:00 GMT"), ErrUnavailable, time.Minute},
		{"unavailable since long", answer(503, json, "{}", "Retry-After", "Fri, 01 Jan 1999 00:00:00 GMT"), ErrUnavailable, 0},
		{"unavailable for long", answer(503, json, "{}", "Retry-After", "999999999"), ErrUnavailable, time.Hour},
		{"unavailable for nonsense", answer(503, json, "{}", "Retry-After", "-1"), ErrUnavailable, 0},
		{"200 in HTML", answer(200, "text/html", "<h1>Welcome</h1>"), ErrUnavailable, 0},
		{"200 cut short", answer(200, json, `{"Macaroon":{"i`), ErrUnavailable, 0},
		{"200 without content", answer(200, json, ""), ErrUnavailable, 0},
		{"200 without macaroon", answer(200, json, "{}"), ErrUnavailable, 0},
		{"200 with no macaroon", answer(200, json, `{"Macaroon":null,"ExpiresIn":1}`), ErrUnavailable, 0},
		{"200 too large", answer(200, json, `{"x":"`+strings.Repeat("x", 1<<17)+`"}`), ErrUnavailable, 0},
		{"nothing of all this", answer(599, "", ""), ErrUnavailable, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // it is 2000-01-01
				svc := newService(t)
				svc.fault = func(int, url.Values) fault { return fault{answer: tc.answer} }
				c := svc.client(t, func(c *Config) { c.Patience = -1 })
				_, err := c.Discharge(context.Background(), Request{Access: svc.mint(t, caveat.V2)})
				if !errors.Is(err, tc.want) {
					t.Fatalf("got %v, want %v", err, tc.want)
				}
				for _, other := range []error{ErrRefused, ErrUnavailable, ErrBadRequest} {
					if other != tc.want && errors.Is(err, other) {
						t.Errorf("it is %v too", other)
					}
				}
				var unavailable *UnavailableError
				if errors.As(err, &unavailable) && unavailable.RetryAfter != tc.retry {
					t.Errorf("retry after %v, want %v", unavailable.RetryAfter, tc.retry)
				}
				if n := svc.count(); n != 1 {
					t.Errorf("%d requests", n)
				}
				if err.Error() == "" || strings.Contains(err.Error(), "%!") {
					t.Errorf("error reads %q", err)
				}
			})
		})
	}
}

// Something else than the service that answers in JSON decides nothing.
func TestAnswersOfOthers(t *testing.T) {
	t.Parallel()
	for name, call := range map[string]func(context.Context, *Client) error{
		"sessions":       func(ctx context.Context, c *Client) error { _, err := c.Sessions(ctx, "u"); return err },
		"ended sessions": func(ctx context.Context, c *Client) error { _, err := c.EndedSessions(ctx, "u"); return err },
		"marks":          func(ctx context.Context, c *Client) error { _, err := c.Marks(ctx, "u"); return err },
		"lift marks":     func(ctx context.Context, c *Client) error { _, err := c.LiftMarks(ctx, "u"); return err },
		"revoke": func(ctx context.Context, c *Client) error {
			_, err := c.RevokeUser(ctx, "u", wire.RevokeOptions{})
			return err
		},
		"revoke session": func(ctx context.Context, c *Client) error {
			_, err := c.RevokeSession(ctx, "u", caveat.SessionID{1}, wire.RevokeOptions{})
			return err
		},
		"revoke several": func(ctx context.Context, c *Client) error {
			_, err := c.RevokeBatch(ctx, []wire.RevokeEntry{{User: "u"}})
			return err
		},
	} {
		for _, body := range []string{`{}`, `null`, `{"status":"maintenance"}`, `{"sessions":null,"ended":null,"now":null,"lifted":null,"results":null}`, `[]`, `""`} {
			t.Run(name+" "+body, func(t *testing.T) {
				t.Parallel()
				svc := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", wire.ContentType)
					io.WriteString(w, body)
				}))
				defer svc.Close()
				c, err := New(Config{URL: svc.URL, Patience: -1})
				if err != nil {
					t.Fatal(err)
				}
				if err := call(context.Background(), c); !errors.Is(err, ErrUnavailable) {
					t.Errorf("got %v", err)
				}
			})
		}
	}
}

func TestRefusalSaysWhy(t *testing.T) {
	t.Parallel()
	svc := newService(t)
	access := svc.mint(t, caveat.V2)
	for _, r := range []string{wire.ReasonSessionEnded, wire.ReasonSessionExpired, wire.ReasonTokenSuperseded, wire.ReasonPolicy, "too_far_away"} {
		t.Run(r, func(t *testing.T) {
			svc.sessions = map[string]*rotation{wire.EncodeBase64(access.Macaroon.Caveats()[0].Id): {ended: r}}
			svc.noTokens = true
			_, err := svc.client(t, nil).Discharge(context.Background(), Request{Access: access})
			var refused *RefusedError
			if !errors.As(err, &refused) {
				t.Fatal(err)
			}
			final := r == wire.ReasonSessionEnded || r == wire.ReasonSessionExpired
			if refused.Reason != r || refused.Message != "no" || refused.SoftLogout != (r == wire.ReasonSessionExpired) || refused.Ended != final {
				t.Errorf("%s: %+v", r, refused)
			}
		})
	}
}

// TestRefusalInfo decodes refusals of this version and of earlier ones.
func TestRefusalInfo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		info string
		want RefusedError
	}{
		"hard":                 {`,"Info":{"Reason":"session_ended","Ended":true,"SoftLogout":false}`, RefusedError{Reason: "session_ended", Ended: true}},
		"soft":                 {`,"Info":{"Reason":"replaced","Ended":true,"SoftLogout":true}`, RefusedError{Reason: "replaced", Ended: true, SoftLogout: true}},
		"a policy's end":       {`,"Info":{"Reason":"stolen","Ended":true,"SoftLogout":true}`, RefusedError{Reason: "stolen", Ended: true, SoftLogout: true}},
		"of the request":       {`,"Info":{"Reason":"token_superseded","Ended":false}`, RefusedError{Reason: "token_superseded"}},
		"soft without an end":  {`,"Info":{"Reason":"token_invalid","Ended":false,"SoftLogout":true}`, RefusedError{Reason: "token_invalid"}},
		"not ended, soft":      {`,"Info":{"Reason":"session_ended","Ended":false}`, RefusedError{Reason: "session_ended"}},
		"earlier: ended":       {`,"Info":{"Reason":"session_ended","SoftLogout":true}`, RefusedError{Reason: "session_ended", Ended: true, SoftLogout: true}},
		"earlier: expired":     {`,"Info":{"Reason":"session_expired","SoftLogout":false}`, RefusedError{Reason: "session_expired", Ended: true}},
		"earlier: reused":      {`,"Info":{"Reason":"token_reused","SoftLogout":true}`, RefusedError{Reason: "token_reused", Ended: true, SoftLogout: true}},
		"earlier: not in time": {`,"Info":{"Reason":"activation_expired","SoftLogout":false}`, RefusedError{Reason: "activation_expired", Ended: true}},
		"earlier: required":    {`,"Info":{"Reason":"token_required","SoftLogout":false}`, RefusedError{Reason: "token_required"}},
		"earlier: policy":      {`,"Info":{"Reason":"policy","SoftLogout":true}`, RefusedError{Reason: "policy"}},
		"kind not given":       {`,"Info":{"Reason":"session_ended","Ended":true}`, RefusedError{Reason: "session_ended", Ended: true, SoftLogout: true}},
		"plain bakery":         {``, RefusedError{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			svc := newService(t)
			svc.fault = func(int, url.Values) fault {
				return fault{answer: answer(401, wire.ContentType, `{"Code":"permission denied","Message":"m"`+c.info+`}`)}
			}
			_, err := svc.client(t, nil).Discharge(context.Background(), Request{Access: svc.mint(t, caveat.V2)})
			c.want.Message = "m"
			var refused *RefusedError
			if !errors.As(err, &refused) || *refused != c.want || refused.Ended != c.want.Ended {
				t.Errorf("got %+v, want %+v", refused, c.want)
			}
		})
	}
}

// An answer that looks well but cannot be used is no answer.
func TestUnusableDischarges(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*service, *wire.DischargeResponse){
		"for another caveat": func(s *service, r *wire.DischargeResponse) {
			m, _ := macaroon.New([]byte("k"), []byte("another"), "", macaroon.V2)
			_ = m.AddFirstPartyCaveat([]byte(rawmacaroon.TimeBefore(time.Now().Add(time.Hour))))
			r.Macaroon, _ = m.MarshalJSON()
		},
		"to be discharged": func(s *service, r *wire.DischargeResponse) {
			m := new(macaroon.Macaroon)
			_ = m.UnmarshalJSON(r.Macaroon)
			_ = m.AddThirdPartyCaveat([]byte("k"), []byte("i"), "elsewhere")
			r.Macaroon, _ = m.MarshalJSON()
		},
		"without end": func(s *service, r *wire.DischargeResponse) {
			m := new(macaroon.Macaroon)
			_ = m.UnmarshalJSON(r.Macaroon)
			n, _ := macaroon.New([]byte("k"), m.Id(), "", macaroon.V2)
			r.Macaroon, _ = n.MarshalJSON()
			r.ExpiresIn = 0
		},
		"with an end that is none": func(s *service, r *wire.DischargeResponse) {
			m := new(macaroon.Macaroon)
			_ = m.UnmarshalJSON(r.Macaroon)
			n, _ := macaroon.New([]byte("k"), m.Id(), "", macaroon.V2)
			_ = n.AddFirstPartyCaveat([]byte("time-before soon"))
			r.Macaroon, _ = n.MarshalJSON()
			r.ExpiresIn = 0
		},
		"with a token that is none": func(s *service, r *wire.DischargeResponse) { r.RefreshToken = "?" },
		"with caveats beside it": func(s *service, r *wire.DischargeResponse) {
			r.Macaroon = json.RawMessage(`{"m":` + string(r.Macaroon) + `,"v":3,"cdata":{"AA":"AA"}}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			svc := newService(t)
			svc.fault = func(int, url.Values) fault {
				return fault{change: func(r *wire.DischargeResponse) { change(svc, r) }}
			}
			c := svc.client(t, func(c *Config) { c.Patience = -1 })
			grant, err := c.Discharge(context.Background(), Request{Access: svc.mint(t, caveat.V2)})
			if !errors.Is(err, ErrUnavailable) || grant.Discharge != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// A discharger that does not say how long a discharge lives writes it into the
// discharge.
func TestExpiryFromTheDischarge(t *testing.T) {
	t.Parallel()
	svc := newService(t)
	svc.fault = func(int, url.Values) fault { return fault{change: func(r *wire.DischargeResponse) { r.ExpiresIn = 0 }} }
	grant, err := svc.client(t, nil).Discharge(context.Background(), Request{Access: svc.mint(t, caveat.V2)})
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(grant.Expires); left <= 4*time.Minute || left > 5*time.Minute {
		t.Errorf("expires in %v", left)
	}
	for _, strange := range []int64{-1, -1 << 63, -1<<63/1_000_000 - 12345} {
		svc.fault = func(int, url.Values) fault {
			return fault{change: func(r *wire.DischargeResponse) { r.ExpiresIn = strange }}
		}
		grant, err := svc.client(t, nil).Discharge(context.Background(), Request{Access: svc.mint(t, caveat.V2)})
		if err != nil || time.Until(grant.Expires) > 5*time.Minute {
			t.Errorf("lifetime %d ms: expires in %v, %v", strange, time.Until(grant.Expires), err)
		}
	}
	m, _ := macaroon.New([]byte("k"), []byte("i"), "", macaroon.V2)
	for _, c := range []string{"s:time-before 2026-01-02T00:00:00Z", "s:time-before 2026-01-01T00:00:00Z", "xtime-before 2020-01-01T00:00:00Z"} {
		_ = m.AddFirstPartyCaveat([]byte(c))
	}
	if got, err := earliestTimeBefore(m); err != nil || !got.Equal(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("expires at %v, %v", got, err)
	}
}

func TestPatience(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		busy := fault{answer: answer(503, wire.ContentType, `{"Code":"unavailable"}`, "Retry-After", "4")}
		svc.fault = faults(fault{before: true}, fault{after: true}, busy)
		c := svc.client(t, nil)
		began := time.Now()
		grant, err := c.Discharge(context.Background(), Request{Access: svc.mint(t, caveat.V2)})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 4*time.Second || took > 15*time.Second {
			t.Errorf("took %v", took)
		}
		ids := map[string]bool{}
		for _, r := range svc.requests {
			ids[r.Get(wire.ParamRequestID)] = true
		}
		if len(svc.requests) != 4 || len(ids) != 1 {
			t.Errorf("%d requests under %d ids, want 4 under 1", len(svc.requests), len(ids))
		}
		if grant.Token != RefreshToken(makeToken(1, 1)) {
			t.Error("the lost answer and its repetition differ")
		}
	})
}

func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		svc := newService(t)
		access := svc.mint(t, caveat.V2)
		svc.fault = func(int, url.Values) fault { return fault{before: true} }
		began := time.Now()
		_, err := svc.client(t, nil).Discharge(context.Background(), Request{Access: access})
		if took := time.Since(began); !errors.Is(err, ErrUnavailable) || !errors.Is(err, errNetwork) || took < 10*time.Second || took > 30*time.Second {
			t.Errorf("after %v: %v", took, err)
		}
		if n := svc.count(); n < 5 || n > 12 {
			t.Errorf("%d attempts", n)
		}

		// A pause that is longer than the patience is not waited for.
		svc.fault = func(int, url.Values) fault {
			return fault{answer: answer(503, wire.ContentType, "{}", "Retry-After", "600")}
		}
		began = time.Now()
		_, err = svc.client(t, nil).Discharge(context.Background(), Request{Access: access})
		var unavailable *UnavailableError
		if !errors.As(err, &unavailable) || unavailable.RetryAfter != 600*time.Second || time.Since(began) != 0 {
			t.Errorf("after %v: %v", time.Since(began), err)
		}

		// Neither is one that the caller has no time for.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		svc.fault = func(int, url.Values) fault { return fault{before: true} }
		began = time.Now()
		_, err = svc.client(t, nil).Discharge(ctx, Request{Access: access})
		if !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

// The client over real HTTP: timeouts, redirects, and the service's own path.
func TestOverHTTP(t *testing.T) {
	t.Parallel()
	svc := newService(t)
	hung := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/base/discharge", func(w http.ResponseWriter, r *http.Request) {
		resp, err := svc.RoundTrip(&http.Request{Method: r.Method, URL: &url.URL{Path: wire.PathDischarge}, Body: r.Body, Header: r.Header})
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", wire.ContentType)
		_, _ = io.Copy(w, resp.Body)
	})
	mux.HandleFunc("/moved/discharge", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/base/discharge", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc("/hung/discharge", func(http.ResponseWriter, *http.Request) { <-hung })
	server := httptest.NewServer(mux)
	defer server.Close()
	defer close(hung)
	for path, ok := range map[string]bool{"/base": true, "/base/": true, "/moved": false, "/hung": false} {
		t.Run(path, func(t *testing.T) {
			c := svc.client(t, func(c *Config) {
				c.URL, c.Location, c.HTTPClient, c.Patience, c.Timeout = server.URL+path, testLocation+"/", nil, -1, time.Minute
				if path == "/hung" {
					c.Timeout = time.Second
				}
			})
			_, err := c.Discharge(context.Background(), Request{Access: svc.mint(t, caveat.V2)})
			if (err == nil) != ok || (err != nil && !errors.Is(err, ErrUnavailable)) {
				t.Errorf("%s: %v", path, err)
			}
		})
	}
	if n := svc.count(); n != 2 {
		t.Errorf("%d requests arrived, want 2", n)
	}
}

func TestInfo(t *testing.T) {
	t.Parallel()
	svc := newService(t)
	got, err := svc.client(t, nil).Info(context.Background())
	if err != nil || got != svc.discharger.Public {
		t.Errorf("got %v, %v", got, err)
	}
	svc.fault = faults(fault{}, fault{answer: answer(200, wire.ContentType, `{"PublicKey":"x"}`)})
	if _, err := svc.client(t, nil).Info(context.Background()); err == nil {
		t.Error("a key of one character")
	}
}

// FuzzAnswer: no answer panics, and only a 401 with the right code refuses.
func FuzzAnswer(f *testing.F) {
	svc := newService(f)
	access := svc.mint(f, caveat.V2)
	id := access.Macaroon.Caveats()[0].Id
	opened, err := svc.opener.Open(id)
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(wire.DischargeResponse{
		Macaroon: discharge(opened, id, []string{rawmacaroon.TimeBefore(time.Now())}), RefreshToken: makeToken(1, 2), ExpiresIn: 300000,
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(200, wire.ContentType, "", good)
	f.Add(401, wire.ContentType, "1", []byte(`{"Code":"permission denied","Message":"no","Info":{"Reason":"session_ended"}}`))
	f.Add(503, "text/html", "Sat, 01 Jan 2000 00:01:00 GMT", []byte("<h1>"))
	f.Add(200, wire.ContentType, "", []byte(`{"Macaroon":{"m":{"i":"x"},"v":3,"cdata":{"AA":"AA"}}}`))
	f.Fuzz(func(t *testing.T, status int, contentType, retryAfter string, body []byte) {
		svc := &service{fault: func(int, url.Values) fault {
			return fault{answer: answer(status, contentType, string(body), "Retry-After", retryAfter)}
		}}
		c := svc.client(t, func(c *Config) { c.Patience = -1 })
		grant, err := c.Discharge(context.Background(), Request{Access: access})
		switch {
		case err == nil:
			if status != http.StatusOK || grant.Expires.IsZero() || string(grant.Discharge.Id()) != string(id) {
				t.Fatalf("status %d gives %v", status, grant)
			}
			if _, err := grant.Bundle(); err != nil && !errors.Is(err, bundle.ErrMalformed) {
				t.Fatal(err)
			}
		case grant.Discharge != nil:
			t.Fatal("a discharge beside an error")
		case errors.Is(err, ErrRefused):
			if status != http.StatusUnauthorized {
				t.Fatalf("status %d refuses: %v", status, err)
			}
		case !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrBadRequest):
			t.Fatalf("an error of no kind: %v", err)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "refresh.example.org", "/discharge", "ftp://a.example", "https://", "https://user:pass@a.example", "https://a.example/?x", "https://a.example/#x", "http://[::1"} {
		t.Run(bad, func(t *testing.T) {
			if _, err := New(Config{URL: bad}); err == nil || strings.Contains(err.Error(), "pass") {
				t.Errorf("%q: %v", bad, err)
			}
		})
	}
	if _, err := (&Client{}).params(Request{}); err == nil {
		t.Error("a request for nothing")
	}
}
