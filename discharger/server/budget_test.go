package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestBudget ends a request's context in every way, with and without a goroutine that
// waits for it.
func TestBudget(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		end  func(b *budget, cancel func())
		want error
	}{
		{"time is up", func(*budget, func()) { time.Sleep(2 * time.Second) }, context.DeadlineExceeded},
		{"the client has gone", func(_ *budget, cancel func()) { cancel() }, context.Canceled},
		{"goes on", func(*budget, func()) { time.Sleep(time.Second) }, nil},
	} {
		for _, waits := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, waits %v", c.name, waits), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					parent, cancel := context.WithCancel(t.Context())
					defer cancel()
					b := newBudget(parent, 2*time.Second)
					defer b.end()
					if at, ok := b.Deadline(); !ok || time.Until(at) != 2*time.Second {
						t.Errorf("deadline %v, %v", at, ok)
					}
					var child context.Context = b
					if waits {
						b.Done()
						var stop func()
						child, stop = context.WithCancel(b)
						defer stop()
					}
					c.end(b, cancel)
					synctest.Wait()
					if got := b.Err(); !errors.Is(got, c.want) {
						t.Errorf("got %v", got)
					}
					if got := child.Err(); !errors.Is(got, c.want) {
						t.Errorf("a context made from it: %v", got)
					}
					select {
					case <-b.Done():
						if c.want == nil {
							t.Error("done")
						}
					default:
						if c.want != nil {
							t.Error("not done")
						}
					}
				})
			})
		}
	}
}

// TestBudgetAfterEnd has contexts that outlive the request: they end with it, and
// nothing panics.
func TestBudgetAfterEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(t.Context(), time.Minute)
		child, stop := context.WithTimeout(b, time.Hour)
		defer stop()
		b.end()
		synctest.Wait()
		if !errors.Is(child.Err(), context.Canceled) || !errors.Is(b.Err(), context.Canceled) {
			t.Error(child.Err(), b.Err())
		}
	})
}

// FuzzParams reads parameters as net/http does, as far as they are known.
func FuzzParams(f *testing.F) {
	f.Add("id64=AAA&token64=b%2Bc+d", "id=x", "application/x-www-form-urlencoded")
	f.Add("a;b=c", "", "application/x-www-form-urlencoded; charset=utf-8")
	f.Add("id=1&id=1&%zz=1", "&&=&scope", "")
	f.Add("id=1", "id=2", "multipart/form-data")
	f.Fuzz(func(t *testing.T, body, query, contentType string) {
		request := func() *http.Request {
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
			r.URL.RawQuery = query
			r.Header["Content-Type"] = []string{contentType}
			return r
		}
		theirs := request()
		err := theirs.ParseForm()
		ours := readParams(request(), []byte(body))
		if (err == nil) != (ours.err == nil) {
			t.Fatalf("%q %q: error %v, net/http %v", body, query, ours.err, err)
		}
		if err == nil {
			compareParams(t, ours, theirs.Form)
		}
	})
}

func compareParams(t *testing.T, ours *params, theirs url.Values) {
	t.Helper()
	for _, name := range paramNames {
		want := theirs[name]
		p := *ours
		got := p.text(name)
		switch {
		case len(want) > 1:
			if p.err == nil {
				t.Errorf("%s is there more than once, and taken", name)
			}
		case p.err != nil, got != theirs.Get(name), ours.has(name) != (len(want) == 1):
			t.Errorf("%s: %q %v, net/http %q", name, got, p.err, want)
		}
	}
	if slices.Contains(paramNames[:], "") {
		t.Error("a parameter without a name")
	}
}
