package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/secret"
	"github.com/discharger/discharger/policy/rules"
)

// ruled is the program with rule files, and a homeserver that calls it on
// behalf of clients.
type ruled struct {
	t      *testing.T
	dir    string // of files; the rules are in policy.yaml
	p      *process
	admin  string
	client *client.Client
	hs     *homeserver.Homeserver
}

const ruledKey = "canary-api-key-of-a.example"

// newRuled starts the service with rules, in the file $DIR/policy.yaml, and with
// further lines of the section policy, in which $DIR stands for the directory.
// more are files.
func newRuled(t *testing.T, rules, section string, more map[string]string) *ruled {
	t.Helper()
	r := &ruled{t: t, dir: t.TempDir()}
	for name, text := range more {
		r.write(name, text)
	}
	r.write("policy.yaml", rules)
	theirs := caveat.GenerateKey()
	digest := sha256.Sum256([]byte(ruledKey))
	var c string
	r.p, c, r.admin = startService(t, strings.ReplaceAll(fmt.Sprintf(`
policy:
  files: $DIR/policy.yaml
  %s
homeservers:
  - {name: a.example, public_key: %s, api_key_sha256: %s}
`, section, theirs.Public, hex.EncodeToString(digest[:])), "$DIR", r.dir))
	var err error
	r.client, err = client.New(client.Config{URL: "http://" + c, APIKey: secret.Bytes(ruledKey), Patience: -1})
	r.must(err)
	service, err := r.client.Info(t.Context())
	r.must(err)
	master := homeserver.NewKey()
	r.hs, err = homeserver.New(homeserver.Config{
		Name: "a.example", Keys: homeserver.Keys{master}, KeyPair: theirs, Discharger: service, Location: "http://" + c,
	})
	r.must(err)
	return r
}

func (r *ruled) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// write replaces a file in one step.
func (r *ruled) write(name, text string) {
	r.t.Helper()
	path := filepath.Join(r.dir, name)
	r.must(os.WriteFile(path+".new", []byte(text), 0o600))
	r.must(os.Rename(path+".new", path))
}

func (r *ruled) hangup() {
	r.t.Helper()
	r.must(r.p.cmd.Process.Signal(syscall.SIGHUP))
}

// waitFor waits until the service has logged something.
func (r *ruled) waitFor(pattern string) {
	r.t.Helper()
	if _, err := r.p.waitFor(pattern); err != nil {
		r.t.Fatalf("%s: %v", pattern, err)
	}
}

// metric reads one value of the service's metrics.
func (r *ruled) metric(series string) float64 {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.admin+"/metrics", nil)
	r.must(err)
	resp, err := http.DefaultClient.Do(req)
	r.must(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	r.must(err)
	m := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(string(body))
	if m == nil {
		return 0
	}
	v, err := strconv.ParseFloat(m[1], 64)
	r.must(err)
	return v
}

// eventually waits until a metric has a value, which the service counts after it
// has answered.
func (r *ruled) eventually(series string, want float64) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	for r.metric(series) != want {
		if ctx.Err() != nil {
			r.t.Fatalf("%s is %v, want %v", series, r.metric(series), want)
		}
	}
}

// inForce waits until the rules in policy.yaml decide.
func (r *ruled) inForce() {
	r.t.Helper()
	set, err := rules.Load(rules.Config{Files: []string{filepath.Join(r.dir, "policy.yaml")}})
	r.must(err)
	r.eventually(fmt.Sprintf(`discharger_policy_info{hash=%q,set="live"}`, set.Hash()), 1)
}

// login mints an access macaroon for Alice, on a phone of its own.
func (r *ruled) login(mode caveat.Mode, policy string, labels map[string]string) *visitor {
	r.t.Helper()
	m, err := r.hs.Mint(homeserver.MintParams{User: "@alice:a.example", Device: "PHONE-" + rand.Text(), Mode: mode, Policy: policy, Labels: labels})
	r.must(err)
	return &visitor{r: r, access: client.Access{Macaroon: m.Macaroon}, addr: netip.MustParseAddr("203.0.113.7")}
}

// visitor is a client at an address.
type visitor struct {
	r      *ruled
	access client.Access
	token  client.RefreshToken
	addr   netip.Addr
}

func (v *visitor) at(addr string) *visitor {
	moved := *v
	moved.addr = netip.MustParseAddr(addr)
	return &moved
}

func (v *visitor) ask() (client.Grant, error) {
	g, err := v.r.client.Discharge(context.Background(), client.Request{
		Access: v.access, Token: v.token, ClientIP: v.addr, UserAgent: "Element X/26.11.1 (iOS 19)",
	})
	if err == nil {
		v.token = g.Token
	}
	return g, err
}

// granted demands a discharge that the homeserver accepts and that lasts as
// long.
func (v *visitor) granted(ttl time.Duration) client.Grant {
	v.r.t.Helper()
	before := time.Now()
	g, err := v.ask()
	after := time.Now()
	if err != nil {
		v.r.t.Fatalf("discharge: %v", err)
	}
	bundle, err := g.Bundle()
	v.r.must(err)
	if _, err := v.r.hs.Verify(v.r.t.Context(), bundle, homeserver.Request{ClientIP: v.addr}); err != nil {
		v.r.t.Fatalf("homeserver: %v", err)
	}
	if g.Expires.Before(before.Add(ttl-time.Second)) || g.Expires.After(after.Add(ttl+time.Second)) {
		v.r.t.Errorf("requested from %v to %v, the discharge lasts until %v, want %v", before, after, g.Expires, ttl)
	}
	return g
}

// refused demands a decided refusal.
func (v *visitor) refused(reason string) *client.RefusedError {
	v.r.t.Helper()
	_, err := v.ask()
	var refusal *client.RefusedError
	if !errors.As(err, &refusal) || refusal.Reason != reason {
		v.r.t.Fatalf("got %v, want a refusal (%s)", err, reason)
	}
	return refusal
}

// undecided demands that nothing was decided: status 503.
func (v *visitor) undecided() *client.UnavailableError {
	v.r.t.Helper()
	_, err := v.ask()
	var unavailable *client.UnavailableError
	if !errors.As(err, &unavailable) || errors.Is(err, client.ErrRefused) {
		v.r.t.Fatalf("got %v, want unavailable", err)
	}
	return unavailable
}
