package homeserver

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/discharger/discharger/discharger/caveat"
)

// outdated is a Freshness that is never current.
type outdated struct{}

func (outdated) Revoked(Identity) bool { return false }
func (outdated) Undecided() error      { return errStale }

// request sends a request through a middleware. The handler answers the user's name.
func (w *world) request(t *testing.T, o MiddlewareOptions, edit func(*http.Request)) *http.Response {
	t.Helper()
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		id, ok := IdentityFrom(r.Context())
		if !ok {
			id.User = "guest"
		}
		io.WriteString(rw, id.User)
	})
	r := httptest.NewRequest(http.MethodGet, "/_matrix/client/v3/sync", nil)
	r.RemoteAddr = "192.0.2.7:50111"
	edit(r)
	rec := httptest.NewRecorder()
	Middleware(w.Homeserver, o)(handler).ServeHTTP(rec, r)
	return rec.Result()
}

func bearer(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

func TestMiddlewarePassesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	access := w.mint(t, alice(caveat.ModeOpen))
	narrow := narrowed(t, access, "client-ip 198.51.100.7")
	there := encode(t, narrow, bound(narrow, w.discharge(t, narrow, usual(caveat.ModeOpen)...)))
	bundle := w.bundle(t, caveat.ModeOpen)
	behind := MiddlewareOptions{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
	for name, tt := range map[string]struct {
		options MiddlewareOptions
		edit    func(*http.Request)
		want    string
	}{
		"bearer":         {MiddlewareOptions{}, bearer(bundle), "@alice:example.org"},
		"any case":       {MiddlewareOptions{}, func(r *http.Request) { r.Header.Set("Authorization", "bEARER  "+bundle) }, "@alice:example.org"},
		"proxy":          {behind, func(r *http.Request) { bearer(there)(r); r.Header.Set("X-Forwarded-For", "198.51.100.7") }, "@alice:example.org"},
		"guest":          {MiddlewareOptions{Optional: true}, func(*http.Request) {}, "guest"},
		"optional token": {MiddlewareOptions{Optional: true}, bearer(bundle), "@alice:example.org"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp := w.request(t, tt.options, tt.edit)
			body, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != http.StatusOK || string(body) != tt.want {
				t.Errorf("%d %s, %v; want %s", resp.StatusCode, body, err, tt.want)
			}
		})
	}
}

func TestMiddlewareRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	hard := newWorld(t, func(c *Config) { c.Revocations = kinds{} })
	soft := newWorld(t, func(c *Config) { c.Revocations = kinds{soft: true} })
	stale := newWorld(t, func(c *Config) { c.Revocations = outdated{} })
	foreign := newWorld(t, func(c *Config) { c.Keys = Keys{testKey(t, 3)} })
	retired := newWorld(t, func(c *Config) { c.Keys, c.Retired = Keys{testKey(t, 3)}, [][4]byte{testKey(t, 2).ID()} })
	bundle := w.bundle(t, caveat.ModeOpen)
	access := w.mint(t, alice(caveat.ModeOpen))
	with := func(ofAccess, ofDischarge string) string {
		d := w.discharge(t, access, usual(caveat.ModeOpen)...)
		a := access
		if ofDischarge != "" {
			d = narrowed(t, d, ofDischarge)
		}
		if ofAccess != "" {
			a = narrowed(t, a, ofAccess)
		}
		return encode(t, a, bound(a, d))
	}
	yes, no := true, false
	for name, tt := range map[string]struct {
		world  *world
		edit   func(*http.Request)
		status int
		code   string
		soft   *bool
	}{
		"no token":             {w, func(*http.Request) {}, 401, "M_MISSING_TOKEN", &yes},
		"token in the query":   {w, func(r *http.Request) { r.URL.RawQuery = "access_token=" + bundle }, 401, "M_MISSING_TOKEN", &yes},
		"other scheme":         {w, func(r *http.Request) { r.SetBasicAuth("alice", "x") }, 401, "M_UNKNOWN_TOKEN", &yes},
		"empty token":          {w, bearer(""), 401, "M_UNKNOWN_TOKEN", &yes},
		"two headers":          {w, func(r *http.Request) { bearer(bundle)(r); r.Header.Add("Authorization", "Bearer "+bundle) }, 401, "M_UNKNOWN_TOKEN", &yes},
		"two tokens":           {w, bearer(bundle + ", " + bundle), 401, "M_UNKNOWN_TOKEN", &yes},
		"rubbish":              {w, bearer("<script>\x00"), 401, "M_UNKNOWN_TOKEN", &yes},
		"huge":                 {w, bearer(strings.Repeat("A", 1<<20)), 401, "M_UNKNOWN_TOKEN", &yes},
		"not discharged":       {w, bearer(encode(t, access)), 401, "M_UNKNOWN_TOKEN", &yes},
		"expired":              {w, bearer(with("time-before 2026-01-01T00:00:00Z", "")), 401, "M_UNKNOWN_TOKEN", &yes},
		"other address":        {w, bearer(with("client-ip 198.51.100.7", "")), 403, "M_FORBIDDEN", nil},
		"discharged elsewhere": {w, bearer(with("", "client-ip 198.51.100.7")), 401, "M_UNKNOWN_TOKEN", &yes},
		"unknown caveat":       {w, bearer(with("moon full", "")), 401, "M_UNKNOWN_TOKEN", &yes},
		"unknown key":          {foreign, bearer(bundle), 503, "M_UNKNOWN", nil},
		"retired key":          {retired, bearer(bundle), 401, "M_UNKNOWN_TOKEN", &yes},
		"revoked, hard":        {hard, bearer(bundle), 401, "M_UNKNOWN_TOKEN", &no},
		"revoked, soft":        {soft, bearer(bundle), 401, "M_UNKNOWN_TOKEN", &yes},
		"out of date":          {stale, bearer(bundle), 503, "M_UNKNOWN", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, o := range []MiddlewareOptions{{}, {Optional: true}} {
				if o.Optional && tt.code == "M_MISSING_TOKEN" {
					continue
				}
				resp := tt.world.request(t, o, tt.edit)
				text, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				var body struct {
					Code       string `json:"errcode"`
					Message    string `json:"error"`
					SoftLogout *bool  `json:"soft_logout"`
					RetryAfter int    `json:"retry_after_ms"`
				}
				if err := json.Unmarshal(text, &body); err != nil {
					t.Fatalf("%v: %s", err, text)
				}
				if resp.StatusCode != tt.status || body.Code != tt.code || body.Message == "" ||
					(body.SoftLogout == nil) != (tt.soft == nil) || tt.soft != nil && *body.SoftLogout != *tt.soft {
					t.Errorf("%d %s; want %d %s", resp.StatusCode, text, tt.status, tt.code)
				}
				if undecided := tt.status == 503; (resp.Header.Get("Retry-After") != "") != undecided || (body.RetryAfter > 0) != undecided {
					t.Errorf("Retry-After is %q, %d ms", resp.Header.Get("Retry-After"), body.RetryAfter)
				}
				if (resp.Header.Get("WWW-Authenticate") != "") != (tt.status == 401) {
					t.Errorf("WWW-Authenticate is %q", resp.Header.Get("WWW-Authenticate"))
				}
			}
		})
	}
}

// Check sees the HTTP request, and a custom writer the error.
func TestMiddlewareOptions(t *testing.T) {
	t.Parallel()
	errMethod := errors.New("not this method")
	w := newWorld(t, func(c *Config) {
		c.Check = func(_ context.Context, c Caveat) error {
			if c.Request.HTTP.Method != c.Condition {
				return errMethod
			}
			return nil
		}
	})
	access := narrowed(t, w.mint(t, alice(caveat.ModeOpen)), http.MethodPut)
	bundle := encode(t, access, bound(access, w.discharge(t, access, usual(caveat.ModeOpen)...)))
	var got *Error
	o := MiddlewareOptions{WriteError: func(rw http.ResponseWriter, _ *http.Request, e *Error) { got = e; rw.WriteHeader(http.StatusTeapot) }}
	if resp := w.request(t, o, bearer(bundle)); resp.StatusCode != http.StatusTeapot || !errors.Is(got, ErrNotMet) || !errors.Is(got, errMethod) {
		t.Errorf("%d, %v", resp.StatusCode, got)
	}
	resp := w.request(t, o, func(r *http.Request) { bearer(bundle)(r); r.Method = http.MethodPut })
	if resp.StatusCode != http.StatusOK {
		t.Errorf("%d, %v", resp.StatusCode, got)
	}
	if _, ok := IdentityFrom(t.Context()); ok {
		t.Error("identity without middleware")
	}
}

// A middleware without a token hides the identity that one before it established.
func TestOptionalMiddlewareHidesOtherIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	inner := Middleware(w.Homeserver, MiddlewareOptions{Optional: true})(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if id, ok := IdentityFrom(r.Context()); ok {
			t.Errorf("request without a token has the identity %+v", id)
		}
	}))
	resp := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	bearer(w.bundle(t, caveat.ModeOpen))(r)
	Middleware(w.Homeserver, MiddlewareOptions{})(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		r.Header.Del("Authorization")
		inner.ServeHTTP(rw, r)
	})).ServeHTTP(resp, r)
	if resp.Code != http.StatusOK {
		t.Errorf("answered %d", resp.Code)
	}
}
