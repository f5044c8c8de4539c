package gateway

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/testkit"
	"github.com/discharger/discharger/discharger/wire"
)

// leases returns the number of requests that hold or wait for a lease.
func (w *world) leases(key admission.DeviceKey) int {
	return w.gateway.leases.Queue(key)
}

// A failed login releases its lease before the client has read the response: a slow
// client could otherwise block the logins of others.
func TestFailedLoginFreesDevice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	big := strings.Repeat("x", 64<<20)
	w.hs.handler = func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(http.StatusForbidden)
		_, _ = rw.Write([]byte(big))
	}
	conn, err := net.Dial("tcp", w.http.Listener.Addr().String())
	testkit.NoError(t, err)
	defer conn.Close()
	body := `{"type":"m.login.password","user":"@u:hs","device_id":"ONE","password":"wrong"}`
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", pathLogin, len(body), body)
	testkit.NoError(t, err)
	_, err = bufio.NewReader(conn).ReadString('\n') // the rest stays unread
	testkit.NoError(t, err)
	if w.leases(admission.Device("@u:hs", "ONE")) > 0 {
		t.Error("lease is held while the client reads the response")
	}
}

// The lease of a login that the homeserver does not answer has a deadline.
func TestHungLoginFreesDevice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.cfg.timeouts.leased = 50 * time.Millisecond })
	hung := make(chan struct{})
	t.Cleanup(func() { close(hung) })
	w.hs.handler = func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-hung:
		}
	}
	w.want(w.do("POST", pathLogin, "", onDevice("ONE")), 502, matrix.CodeUnknown)
	if w.leases(admission.Device("@u:hs", "ONE")) > 0 {
		t.Error("lease is still held")
	}
}

// A leased device does not delay the logouts of others.
func TestLeasedDeviceDelaysNoLogouts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.offline()
	var tokens []answer
	for i := range 4 {
		in := w.login(false, anyMap{"device_id": fmt.Sprintf("D%d", i)})
		w.revoke(w.sessionOf(in.text("access_token")), wire.RevokeOptions{})
		tokens = append(tokens, in)
	}
	for _, in := range tokens {
		w.do("GET", upstream.PathWhoami, in.text("access_token"), nil)
	}
	testkit.NoError(t, w.gateway.outbox.Reconcile(t.Context(), 0))
	ids, err := w.gateway.outbox.Store.Logouts()
	testkit.NoError(t, err)
	d, _, err := w.gateway.outbox.Store.Logout(ids[0])
	testkit.NoError(t, err)
	release, err := w.gateway.leases.Acquire(t.Context(), admission.Device(d.User, d.Device), admission.Claim{})
	testkit.NoError(t, err)
	if err := w.gateway.outbox.Flush(t.Context()); err == nil {
		t.Error("device logged out while a request held its lease")
	}
	if n := w.hs.loggedOut(); n != 3 {
		t.Errorf("%d devices logged out, want 3", n)
	}
	release()
	w.settled()
	if n := w.hs.loggedOut(); n != 4 {
		t.Errorf("%d devices logged out, want 4", n)
	}
}

// Any number of a stranger's logins on a device leave room for its user's logout.
func TestStrangersLoginsLeaveRoom(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, w *world) {
		mine := w.login(false, onDevice("ONE"))
		hung := make(chan struct{})
		w.hs.handler = func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-Forwarded-For") == "192.0.2.1" {
				<-hung
			}
			w.hs.serve(rw, r)
		}
		const many = 2 * admission.MaxLeaseQueue
		ended := make(chan int, many)
		for range many {
			req := w.request("POST", pathLogin, "", anyMap{"type": "m.login.password", "user": "@u:hs", "device_id": "ONE", "password": "wrong"})
			req.Header.Set("X-Forwarded-For", "192.0.2.1")
			go func() { ended <- w.send(req).status }()
		}
		for range many - admission.MaxOpenQueuePeer {
			if status := <-ended; status != 503 {
				t.Errorf("status %d", status)
			}
		}
		out := make(chan answer, 1)
		go func() { out <- w.do("POST", upstream.PathLogout, mine.text("access_token"), anyMap{}) }()
		testkit.Eventually(t, "the logout waits", func() bool { return w.leases(admission.Device("@u:hs", "ONE")) > admission.MaxOpenQueuePeer })
		close(hung)
		w.want(<-out, 200, "")
		for range admission.MaxOpenQueuePeer {
			if status := <-ended; status != 403 {
				t.Errorf("status %d", status)
			}
		}
	}, func(w *world) { w.cfg.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")} })
}

// The devices deleted by one request are bounded: each has a lease and a revocation.
func TestDeletedDevicesAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.login(false, anyMap{"device_id": "ONE"}).text("access_token")
	devices := func(n int) (list []string) {
		for i := range n {
			list = append(list, fmt.Sprintf("D%d", i))
		}
		return list
	}
	path := "/_matrix/client/v3/delete_devices"
	w.want(w.do("POST", path, token, anyMap{"auth": anyMap{}, "devices": devices(10)}), 200, "")
	before := w.hs.count()
	w.want(w.do("POST", path, token, anyMap{"auth": anyMap{}, "devices": devices(maxDeletes + 1)}), 400, matrix.CodeTooLarge)
	if w.hs.count() != before {
		t.Error("request was forwarded")
	}
}

// Only the homeserver resolves the user of a login with a token or mail address. Until
// then the device that the login names is not logged out.
func TestUnnamedLoginExcludesLogout(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		body anyMap
	}{
		{"token", anyMap{"type": "m.login.token", "token": "t"}},
		{"jwt", anyMap{"type": "org.matrix.login.jwt", "token": "t"}},
		{"mail", anyMap{"type": "m.login.password", "identifier": anyMap{"type": "m.id.thirdparty", "medium": "email", "address": "a@b"}}},
	} {
		for _, how := range []string{"pending", "own"} {
			t.Run(c.name+", "+how, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T, w *world) {
					w.offline()
					old := w.login(true, anyMap{"device_id": "ONE"})
					if how == "pending" {
						w.revoke(w.sessionOf(old.text("access_token")), wire.RevokeOptions{})
						testkit.NoError(t, w.gateway.outbox.Reconcile(t.Context(), 0))
					}
					arrived, release := make(chan struct{}), make(chan struct{})
					w.hs.handler = func(rw http.ResponseWriter, r *http.Request) {
						w.hs.serve(rw, r)
						if r.URL.Path == pathLogin && r.Method == http.MethodPost {
							close(arrived) // the token exists, the response is pending
							<-release
						}
					}
					in := make(chan answer)
					c.body["device_id"] = "ONE"
					go func() { in <- w.do("POST", pathLogin, "", c.body) }()
					<-arrived
					done := make(chan struct{})
					go func() {
						defer close(done)
						if how == "pending" {
							_ = w.gateway.outbox.Flush(t.Context())
							return
						}
						w.do("POST", upstream.PathLogout, old.text("access_token"), anyMap{})
					}()
					if how == "pending" {
						<-done // the logout is retried later
					} else {
						testkit.Eventually(t, "the logout waits", func() bool { return w.leases(admission.Device("", "ONE")) == 2 })
					}
					close(release)
					new := <-in
					<-done
					w.want(new, 200, "")
					w.works("the new session", new)
					if w.hs.loggedOut() > 0 {
						t.Error("device was logged out")
					}
				})
			})
		}
	}
}

// A login's wait for a pending revocation is bounded.
func TestLoginWaitsForRevocations(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) { w.cfg.timeouts.revoke, w.cfg.timeouts.leased = 50*time.Millisecond, time.Hour })
	in := w.login(false, anyMap{"device_id": "TWO"})
	w.hung.Store(true)
	w.want(w.do("POST", "/_matrix/client/v3/logout/all", in.text("access_token"), anyMap{}), 200, "")
	w.want(w.do("POST", pathLogin, "", onDevice("ONE")), 503, matrix.CodeUnknown)
	w.hung.Store(false)
}

// An empty device id is not shared between logins.
func TestEmptyDevice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, two := w.login(false, anyMap{"device_id": ""}), w.login(false, anyMap{"device_id": ""})
	if strings.Contains(w.hs.last(t).Body, memberDevice) {
		t.Errorf("forwarded: %s", w.hs.last(t).Body)
	}
	w.want(w.do("POST", upstream.PathLogout, one.text("access_token"), anyMap{}), 200, "")
	w.works("the other", two)
}
