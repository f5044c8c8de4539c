package matrix

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// wholeVariable is the environment variable that selects the whole matrix of
// requests: every route, by every method, with every token.
const wholeVariable = "DISCHARGER_TEST_WHOLE"

// methods are the methods for every path.
var methods = []string{
	http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions, http.MethodTrace,
}

// carrying is a place for a token in a request, or none.
type carrying struct {
	name    string
	token   func(*cast) string
	inQuery bool
}

var carryings = []carrying{
	{"user", userToken, false},
	{"administrator", adminToken, false},
	{"none", func(*cast) string { return "" }, false},
	{"user in the query", userToken, true},
	{"changed", changedToken, false},
	{"administrator in the query", adminToken, true},
	{"wrong", wrongToken, false},
	{"changed, in the query", changedToken, true},
	{"wrong, in the query", wrongToken, true},
}

func userToken(c *cast) string  { return c.user.token }
func adminToken(c *cast) string { return c.admin.token }
func wrongToken(*cast) string   { return "wrong" }

// changedToken returns the user's token with another last byte.
func changedToken(c *cast) string {
	last := byte('A')
	if strings.HasSuffix(c.user.token, "A") {
		last = 'Q'
	}
	return c.user.token[:len(c.user.token)-1] + string(last)
}

// TestDifferential sends the same requests to a homeserver, and through a gateway to
// another one of the same kind and in the same state, and compares the answers.
func TestDifferential(t *testing.T) {
	k := assemble(t)
	for _, kind := range kinds() {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			testDifferential(t, k, kind)
		})
	}
}

func testDifferential(t *testing.T, k *kit, kind *homeserverKind) {
	direct, behind := kind.start(t, k), kind.start(t, k)
	behind.watch(t)
	d := deploy(t, k, behind, settings{ttl: time.Hour})
	c := &comparison{
		kind:    kind.name,
		direct:  &side{site: &direct.site, aliases: map[string]string{}},
		through: &side{site: &d.gateways[0].site, aliases: map[string]string{}},
		used:    map[string]int{},
	}
	c.renew(t)
	defer c.report(t)
	whole := os.Getenv(wholeVariable) != ""
	for i, p := range knownPatterns(t) {
		for j, method := range methods {
			for n, how := range carryings {
				if whole || n == (i+j)%len(carryings) || n == 0 && slices.Contains(p.methods, method) {
					c.compare(t, p, method, how, i+j+n)
				}
			}
		}
	}
	said := c.through.said.String()
	for _, token := range behind.everyToken(t) {
		if strings.Contains(said, token) {
			t.Errorf("a token of the homeserver's is in an answer")
		}
	}
}

// comparison makes requests to two sides in the same order.
type comparison struct {
	kind            string
	direct, through *side
	casts, requests int
	used            map[string]int // accepted differences, by name
}

func (c *comparison) report(t *testing.T) {
	t.Helper()
	t.Logf("%d requests compared, with %d casts; accepted differences: %v", c.requests, c.casts, c.used)
}

func (c *comparison) both() []*side { return []*side{c.direct, c.through} }

// renew replaces the cast.
func (c *comparison) renew(t *testing.T) {
	t.Helper()
	c.casts++
	for _, s := range c.both() {
		s.newCast(t, c.casts)
	}
}

// compare makes one request to both sides.
func (c *comparison) compare(t *testing.T, p pathPattern, method string, how carrying, turn int) {
	t.Helper()
	path := p.path(t, c.direct.cast.values, turn)
	sample := sampleOf(method, path)
	answers := make([]answer, 2)
	errs := make([]error, 2)
	var wg sync.WaitGroup
	for i, s := range c.both() {
		wg.Go(func() {
			answers[i], errs[i] = s.request(t.Context(), method, p.path(t, s.cast.values, turn), how, sample)
			if errors.Is(errs[i], io.ErrUnexpectedEOF) { // a server that does not read a body may close the connection
				answers[i], errs[i] = s.request(t.Context(), method, p.path(t, s.cast.values, turn), how, sample)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			t.Fatalf("%s %s, token %s: %v", method, path, how.name, err)
		}
	}
	c.requests++
	x := pair{c.kind, method, path, how, answers[0], answers[1]}
	for _, d := range differences(c.direct.comparable(answers[0]), c.through.comparable(answers[1])) {
		if name := x.accepted(d); name != "" {
			c.used[name]++
			continue
		}
		t.Errorf("%s %s, token %s: %s", method, path, how.name, d)
	}
	c.restore(t, method, sample, answers)
}

// restore renews the cast if the last request may have damaged it.
func (c *comparison) restore(t *testing.T, method string, sample sample, answers []answer) {
	t.Helper()
	ok := func(a answer) bool { return a.status < http.StatusMultipleChoices }
	if !hasBody(method) || !slices.ContainsFunc(answers, ok) {
		return
	}
	if sample.breaks || !c.direct.intact(t) || !c.through.intact(t) {
		c.renew(t)
	}
}

// comparing is a client that follows no redirects.
var comparing = &http.Client{
	Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	Timeout:       time.Minute,
}

// request makes one request to the side, and keeps the answer.
func (s *side) request(ctx context.Context, method, path string, how carrying, sample sample) (answer, error) {
	content := io.Reader(http.NoBody)
	if hasBody(method) {
		b, err := json.Marshal(sample.body(s.cast))
		if err != nil {
			return answer{}, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.url+path+"?timeout=0", content)
	if err != nil {
		return answer{}, err
	}
	switch token := how.token(s.cast); {
	case token == "":
	case how.inQuery:
		req.URL.RawQuery += "&access_token=" + url.QueryEscape(token)
	default:
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Host = "matrix.example.org"
	resp, err := comparing.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = resp.Header.Write(&s.said)
	s.said.Write(raw)
	a := answer{status: resp.StatusCode, header: resp.Header, raw: string(raw)}
	_ = json.Unmarshal(raw, &a.body)
	return a, nil
}
