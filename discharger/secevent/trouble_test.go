package secevent_test

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/discharger/discharger/discharger"
)

func status(code int, body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}
}

// drop closes the connection without an answer.
func drop(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		conn.Close()
	}
}

// An undecided answer is followed by the same token, after growing pauses, and later
// events wait.
func TestRetries(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(http.ResponseWriter){
		"unavailable":         status(http.StatusServiceUnavailable, "later"),
		"gateway":             status(http.StatusBadGateway, strings.Repeat("x", 1<<20)),
		"error":               status(http.StatusInternalServerError, ""),
		"unauthorized":        status(http.StatusUnauthorized, `{"err":"authentication_failed"}`),
		"forbidden":           status(http.StatusForbidden, `{"err":"access_denied"}`),
		"too many":            status(http.StatusTooManyRequests, ""),
		"not found":           status(http.StatusNotFound, ""),
		"no content":          status(http.StatusNoContent, ""),
		"bad request":         status(http.StatusBadRequest, "<html>"),
		"bad request, no err": status(http.StatusBadRequest, `{"error":"invalid_request"}`),
		"unauthenticated":     status(http.StatusBadRequest, `{"err":"authentication_failed"}`),
		"access denied":       status(http.StatusBadRequest, `{"err":"access_denied"}`),
		"unknown key":         status(http.StatusBadRequest, `{"err":"invalid_key"}`),
		"dropped":             drop,
		"malformed redirect": func(w http.ResponseWriter) {
			w.Header().Set("Location", "://eyJ canary")
			w.WriteHeader(http.StatusFound)
		},
		"malformed answer":           func(w http.ResponseWriter) { nonsense(w) },
		"rejection beyond the bound": status(http.StatusBadRequest, `{"x":"`+strings.Repeat("x", 1<<20)+`","err":"invalid_request"}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, 0)
				r := newReceiver(w, func(n int, rw http.ResponseWriter, _ *http.Request) bool {
					if n <= 3 {
						answer(rw)
					}
					return n <= 3
				})
				first, second := w.login("a.example", alice, "ONE"), w.login("a.example", alice, "TWO")
				first.logout(discharger.ScopeSession)
				second.logout(discharger.ScopeSession)
				w.send(w.config(r.to("a.example")))
				if a, b := r.next(), r.next(); a.member("device") != "ONE" || b.member("device") != "TWO" {
					t.Errorf("events of %v, then of %v", a.claims["sub_id"], b.claims["sub_id"])
				}
				r.mu.Lock()
				if seen := slices.Compact(slices.Clone(r.seen)); len(r.seen) != 5 || len(seen) != 2 {
					t.Errorf("sent %v", r.seen)
				}
				r.mu.Unlock()
				doubling(t, r.pauses()[:3], 3)
				doubling(t, w.logged(), 3)
				if n := w.value("failed_total", "a.example"); n != 3 {
					t.Errorf("%v failures are counted, want 3", n)
				}
				w.keepsSecrets(r)
			})
		})
	}
}

// nonsense answers with no HTTP.
func nonsense(w http.ResponseWriter) {
	conn, b, err := w.(http.Hijacker).Hijack()
	if err == nil {
		fmt.Fprint(b, "eyJ canary\r\n\r\n")
		b.Flush()
		conn.Close()
	}
}

// keepsSecrets demands that no secret was logged.
func (w *world) keepsSecrets(r *receiver) {
	w.t.Helper()
	log := w.out.String()
	if log == "" {
		w.t.Error("the log is empty")
	}
	for _, secret := range []string{"canary", "Bearer", ".eyJ", r.url} {
		if strings.Contains(log, secret) {
			w.t.Errorf("%s is in the log:\n%s", secret, log)
		}
	}
}

// A rejected token does not stop delivery.
func TestRejections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		codes := []string{"invalid_request", "not_yet_known", "invalid_issuer", "invalid_audience", "canary eyJ"}
		r := newReceiver(w, func(n int, rw http.ResponseWriter, _ *http.Request) bool {
			if n <= len(codes) {
				status(http.StatusBadRequest, fmt.Sprintf(`{"err":%q,"description":"canary"}`, codes[n-1]))(rw)
			}
			return n <= len(codes)
		})
		for i := range len(codes) + 1 {
			w.login("a.example", alice, strconv.Itoa(i)).logout(discharger.ScopeSession)
		}
		stop := w.send(w.config(r.to("a.example")))
		if e := r.next(); e.member("device") != strconv.Itoa(len(codes)) {
			t.Errorf("subject %v", e.claims["sub_id"])
		}
		w.until("delivered_total", "a.example", 1)
		stop()
		if n := w.value("refused_total", "a.example"); int(n) != len(codes) {
			t.Errorf("%v are counted as refused, want %d", n, len(codes))
		}
		for _, want := range append(codes[:4:4], "err=other") {
			if !strings.Contains(w.out.String(), want) {
				t.Errorf("%s is not in the log:\n%s", want, &w.out)
			}
		}
		w.keepsSecrets(r)
		if pauses := w.logged(); len(pauses) != 0 || !r.at[0].Equal(r.at[len(r.at)-1]) {
			t.Errorf("pauses %v, requests at %v", pauses, r.at)
		}
	})
}

// A redirect is undecided, and not followed.
func TestRedirect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		var elsewhere atomic.Int64
		other := newReceiver(w, func(int, http.ResponseWriter, *http.Request) bool { elsewhere.Add(1); return false })
		codes := []int{http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect}
		r := newReceiver(w, func(n int, rw http.ResponseWriter, req *http.Request) bool {
			if n <= len(codes) {
				http.Redirect(rw, req, other.url+"/events?canary=secret", codes[n-1])
			}
			return n <= len(codes)
		})
		w.send(w.config(r.to("a.example")))
		w.login("a.example", alice, "PHONE").logout(discharger.ScopeSession)
		r.next()
		if n := elsewhere.Load(); n != 0 {
			t.Errorf("a redirect was followed %d times", n)
		}
	})
}

// Retry-After postpones the retry, for a bounded time.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		values := []string{"120", "1", "999999", "nonsense", "-5", ""}
		r := newReceiver(w, func(n int, rw http.ResponseWriter, _ *http.Request) bool {
			if n <= len(values) {
				rw.Header().Set("Retry-After", cmp.Or(values[n-1], time.Now().Add(30*time.Minute).UTC().Format(http.TimeFormat)))
				rw.WriteHeader(http.StatusTooManyRequests)
			}
			return n <= len(values)
		})
		w.send(w.config(r.to("a.example")))
		w.login("a.example", alice, "PHONE").logout(discharger.ScopeSession)
		r.next()
		for i, want := range [][2]time.Duration{
			{2 * time.Minute, 2 * time.Minute}, {time.Second, 3 * time.Second}, {time.Hour, time.Hour},
			{4 * time.Second, 12 * time.Second}, {8 * time.Second, 24 * time.Second}, {30*time.Minute - time.Second, 30 * time.Minute},
		} {
			if got := r.pauses()[i]; got < want[0] || got > want[1]+1 {
				t.Errorf("pause %d is %v, want %v to %v", i+1, got, want[0], want[1])
			}
		}
	})
}

// A timeout is retried.
func TestTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		r := newReceiver(w, func(n int, _ http.ResponseWriter, req *http.Request) bool {
			if n == 1 {
				<-req.Context().Done()
			}
			return n == 1
		})
		cfg := w.config(r.to("a.example"))
		cfg.Timeout = 300 * time.Millisecond
		w.send(cfg)
		w.login("a.example", alice, "PHONE").logout(discharger.ScopeSession)
		r.next()
		if n := w.value("failed_total", "a.example"); n < 1 {
			t.Errorf("%v failures are counted, want 1", n)
		}
	})
}

// A refused connection is retried.
func TestNoConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0)
		r := newReceiver(w, nil)
		cfg := w.config(r.to("a.example"))
		dials := 0
		cfg.Transport = &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if dials++; dials <= 3 {
				return w.pipes.Dial(ctx, network, "127.0.0.1:0") // no listener
			}
			return w.pipes.Dial(ctx, network, address)
		}}
		w.send(cfg)
		w.login("a.example", alice, "PHONE").logout(discharger.ScopeSession)
		r.next()
		if n := w.value("failed_total", "a.example"); n != 3 {
			t.Errorf("%v failures are counted, want 3", n)
		}
		w.keepsSecrets(r)
	})
}
