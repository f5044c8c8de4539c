package client

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/rawmacaroon"
	"github.com/discharger/discharger/discharger/wire"
)

const testLocation = "https://refresh.example.org"

// service is a stand-in for the service: it discharges, keeps the rules of rotation,
// and has the faults of a test. It is an http.RoundTripper, for use in a synctest
// bubble.
type service struct {
	homeserver caveat.KeyPair
	discharger caveat.KeyPair
	opener     *caveat.Opener
	lifetime   time.Duration
	noTokens   bool // behave as in modes open and held

	// fault returns the fault of request n, from 0. Nil: no faults.
	fault func(n int, form url.Values) fault

	mu       sync.Mutex
	requests []url.Values
	headers  []http.Header
	sessions map[string]*rotation
	nonces   uint64
}

// rotation is the record of a session.
type rotation struct {
	confirmed, successor uint64 // epochs: successor is confirmed+1
	nonce, next          uint64
	requestID            string // of the request that made the successor
	ended                string // reason, once it is over
}

// fault is the fault of one request. The zero value is none.
type fault struct {
	before bool                          // fails before it reaches the service
	after  bool                          // its answer is lost
	answer func() *http.Response         // answered by something else
	change func(*wire.DischargeResponse) // answered wrongly
}

func newService(t testing.TB) *service {
	t.Helper()
	s := &service{
		homeserver: caveat.GenerateKey(), discharger: caveat.GenerateKey(),
		lifetime: 5 * time.Minute, sessions: make(map[string]*rotation),
	}
	var err error
	s.opener, err = caveat.NewOpener(caveat.OpenerConfig{
		Keys:        []caveat.KeyPair{s.discharger},
		Homeservers: []caveat.Homeserver{{Name: "example.org", Key: s.homeserver.Public}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// mint makes an access macaroon. A V3 caveat is put beside it, as the bakery
// does.
func (s *service) mint(t testing.TB, version caveat.Version) Access {
	t.Helper()
	id, err := caveat.Seal(caveat.SealParams{
		Version: version, Homeserver: s.homeserver, Discharger: s.discharger.Public,
		RootKey: []byte("root key of the caveat.."), Condition: "session {}",
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := macaroon.New([]byte("root key"), []byte("access macaroon"), "", macaroon.V2)
	if err != nil {
		t.Fatal(err)
	}
	a := Access{Macaroon: m}
	if version == caveat.V3 {
		a.External = map[string][]byte{"\x03\x00": id}
		id = []byte{3, 0}
	}
	if err := m.AddThirdPartyCaveat([]byte("root key of the caveat.."), id, testLocation); err != nil {
		t.Fatal(err)
	}
	return a
}

// client makes a client of the service.
func (s *service) client(t testing.TB, edit func(*Config)) *Client {
	t.Helper()
	cfg := Config{URL: testLocation, HTTPClient: &http.Client{Transport: s}}
	if edit != nil {
		edit(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var errNetwork = errors.New("connection reset by peer")

// RoundTrip answers a request, faults and all.
func (s *service) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.requests)
	s.requests = append(s.requests, form)
	s.headers = append(s.headers, r.Header)
	var f fault
	if s.fault != nil {
		f = s.fault(n, form)
	}
	switch {
	case f.before:
		return nil, errNetwork
	case f.answer != nil:
		return f.answer(), nil
	}
	w := httptest.NewRecorder()
	w.Header().Set("Content-Type", wire.ContentType)
	s.serve(w, r.Method+" "+r.URL.Path, form, f.change)
	if f.after {
		return nil, errNetwork
	}
	return w.Result(), nil
}

func (s *service) serve(w http.ResponseWriter, route string, form url.Values, change func(*wire.DischargeResponse)) {
	switch route {
	case "POST " + wire.PathDischarge:
		s.discharge(w, form, change)
	case "POST " + wire.PathLogout:
		s.session(form).ended = wire.ReasonSessionEnded
		_, _ = io.WriteString(w, "{}")
	case "GET " + wire.PathInfo:
		_ = json.NewEncoder(w).Encode(wire.InfoResponse{PublicKey: s.discharger.Public.String(), Version: 3})
	default:
		answerError(w, http.StatusNotFound, wire.ErrorResponse{Code: wire.CodeNotFound, Message: "no such path"})
	}
}

func answerError(w http.ResponseWriter, status int, body wire.ErrorResponse) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, reason string) {
	info := &wire.RefusalInfo{Reason: reason}
	switch reason {
	case wire.ReasonSessionEnded, wire.ReasonSessionExpired, wire.ReasonTokenReused:
		soft := reason != wire.ReasonSessionEnded
		info.Ended, info.SoftLogout = true, &soft
	}
	answerError(w, http.StatusUnauthorized, wire.ErrorResponse{Code: wire.CodePermissionDenied, Message: "no", Info: info})
}

func (s *service) session(form url.Values) *rotation {
	name := form.Get(wire.ParamID64) + form.Get(wire.ParamCaveat64)
	r := s.sessions[name]
	if r == nil {
		r = &rotation{}
		s.sessions[name] = r
	}
	return r
}

func (s *service) discharge(w http.ResponseWriter, form url.Values, change func(*wire.DischargeResponse)) {
	id, err := wire.DecodeBase64(form.Get(wire.ParamID64))
	if err != nil || len(id) == 0 {
		answerError(w, http.StatusBadRequest, wire.ErrorResponse{Code: wire.CodeBadRequest, Message: "no caveat"})
		return
	}
	sealed := id
	if external := form.Get(wire.ParamCaveat64); external != "" {
		if sealed, err = wire.DecodeBase64(external); err != nil {
			answerError(w, http.StatusBadRequest, wire.ErrorResponse{Code: wire.CodeBadRequest, Message: "bad caveat"})
			return
		}
	}
	opened, err := s.opener.Open(sealed)
	if err != nil {
		answerError(w, http.StatusBadRequest, wire.ErrorResponse{Code: wire.CodeBadRequest, Message: err.Error()})
		return
	}
	r := s.session(form)
	conditions := []string{rawmacaroon.TimeBefore(time.Now().Add(s.lifetime))}
	var token string
	if !s.noTokens {
		reason := ""
		if token, reason = s.rotate(r, form); reason != "" {
			refuse(w, reason)
			return
		}
		conditions = append(conditions, rawmacaroon.Epoch(r.successor))
	} else if r.ended != "" {
		refuse(w, r.ended)
		return
	}
	body := wire.DischargeResponse{Macaroon: discharge(opened, id, conditions), RefreshToken: token, ExpiresIn: s.lifetime.Milliseconds()}
	if change != nil {
		change(&body)
	}
	_ = json.NewEncoder(w).Encode(body)
}

// discharge writes an unbound discharge as the bakery's clients expect it.
func discharge(opened caveat.Opened, id []byte, conditions []string) json.RawMessage {
	version := macaroon.V2
	if opened.Version == caveat.V1 {
		version = macaroon.V1
	}
	m, err := macaroon.New(opened.RootKey, id, "", version)
	if err != nil {
		panic(err)
	}
	for _, c := range conditions {
		_ = m.AddFirstPartyCaveat([]byte(c))
	}
	data, err := m.MarshalJSON()
	if err != nil {
		panic(err)
	}
	if opened.Version == caveat.V3 {
		data = fmt.Appendf(nil, `{"m":%s,"v":3,"ns":"std:"}`, data)
	}
	return data
}

// rotate applies the rules of rotation: it is strict, and without grace.
func (s *service) rotate(r *rotation, form url.Values) (token, reason string) {
	if r.ended != "" {
		return "", r.ended
	}
	epoch, nonce := uint64(0), uint64(0)
	if text := form.Get(wire.ParamToken64); text != "" {
		epoch, nonce = readToken(text)
	}
	switch {
	case r.successor > 0 && epoch == r.successor && nonce == r.next:
		r.confirmed, r.nonce, r.successor = r.successor, r.next, 0
	case epoch == r.confirmed && nonce == r.nonce:
		if r.successor > 0 && form.Get(wire.ParamRequestID) == r.requestID {
			return makeToken(r.successor, r.next), ""
		}
	default:
		r.ended = wire.ReasonTokenReused
		return "", r.ended
	}
	s.nonces++
	r.successor, r.next, r.requestID = r.confirmed+1, s.nonces, form.Get(wire.ParamRequestID)
	return makeToken(r.successor, r.next), ""
}

// seen is the report of a homeserver that a discharge of this epoch is in use.
func (s *service) seen(epoch uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.sessions {
		if r.successor > 0 && epoch == r.successor {
			r.confirmed, r.nonce, r.successor = r.successor, r.next, 0
		}
	}
}

func makeToken(epoch, nonce uint64) string {
	id := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, epoch), nonce)
	m, err := macaroon.New([]byte("token key"), id, "", macaroon.V2)
	if err != nil {
		panic(err)
	}
	data, err := m.MarshalBinary()
	if err != nil {
		panic(err)
	}
	return wire.EncodeBase64(data)
}

func readToken(text string) (epoch, nonce uint64) {
	data, err := wire.DecodeBase64(text)
	if err != nil {
		return ^uint64(0), 0
	}
	var m macaroon.Macaroon
	if err := m.UnmarshalBinary(data); err != nil || len(m.Id()) != 16 {
		return ^uint64(0), 0
	}
	return binary.BigEndian.Uint64(m.Id()), binary.BigEndian.Uint64(m.Id()[8:])
}

// count returns the number of requests.
func (s *service) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// answer makes an answer that the service did not give.
func answer(status int, contentType, body string, header ...string) func() *http.Response {
	return func() *http.Response {
		h := http.Header{"Content-Type": {contentType}}
		for i := 0; i < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body))}
	}
}

// faults plays one fault after the other, and then none.
func faults(list ...fault) func(int, url.Values) fault {
	return func(n int, _ url.Values) fault {
		if n < len(list) {
			return list[n]
		}
		return fault{}
	}
}

// epochOf reads the epoch in a bundle, after checking its signatures.
func epochOf(t testing.TB, text string) uint64 {
	t.Helper()
	s, err := bundle.Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	conditions, err := s[0].VerifySignature([]byte("root key"), s[1:])
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range conditions {
		if name, arg := rawmacaroon.CutCondition(c); name == rawmacaroon.CondDeclared {
			n, ok := rawmacaroon.ParseEpoch(arg)
			if !ok {
				t.Fatalf("condition %q", c)
			}
			return n
		}
	}
	return 0
}

func encodeBundleT(t testing.TB, s macaroon.Slice) string {
	t.Helper()
	text, err := bundle.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
