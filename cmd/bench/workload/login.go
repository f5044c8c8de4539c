package workload

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/keyfile"
	"github.com/discharger/discharger/discharger/wire"
)

// Logins mints access macaroons of users that exist in this run alone.
type Logins struct {
	ring       *keyfile.Ring
	homeserver *homeserver.Homeserver
	apiKey     string // "": none
	run        string // part of the names of users, different in each run
	perUser    int64  // sessions of each user
	count      atomic.Int64
}

// NewHomeserver returns a homeserver with the keys of a ring and a cache of a size
// in bytes, see [homeserver.Config].
func NewHomeserver(ring *keyfile.Ring, service caveat.PublicKey, cache int) (*homeserver.Homeserver, error) {
	cfg := homeserver.ConfigFromRing(ring)
	cfg.Discharger, cfg.CacheBytes = service, cache
	return homeserver.New(cfg)
}

// NewLogins returns logins at the homeserver with the keys of a ring, for the
// service with a public key.
func NewLogins(ring *keyfile.Ring, service caveat.PublicKey, perUser int) (*Logins, error) {
	h, err := NewHomeserver(ring, service, 0)
	if err != nil {
		return nil, err
	}
	var run [4]byte
	rand.Read(run[:])
	l := &Logins{ring: ring, homeserver: h, run: hex.EncodeToString(run[:]), perUser: int64(max(perUser, 1))}
	if k := ring.Of(keyfile.API); len(k) > 0 {
		l.apiKey = string(k[0].APIKey())
	}
	return l, nil
}

// At returns logins at the same homeserver for another service.
func (l *Logins) At(service caveat.PublicKey, perUser int) (*Logins, error) {
	return NewLogins(l.ring, service, perUser)
}

// Login is one session, as a client has it.
type Login struct {
	ID64 string // the caveat, in base64

	mode  caveat.Mode
	token string // the current refresh token
	first string // the first refresh token, superseded after two refreshes
	tries int    // counts refreshes, for their request-ids
}

// New mints a session, which is not activated.
func (l *Logins) New(mode caveat.Mode) (*Login, error) {
	n := l.count.Add(1) - 1
	m, err := l.homeserver.Mint(homeserver.MintParams{
		User: fmt.Sprintf("@%s-%d:example.org", l.run, n/l.perUser), Device: fmt.Sprintf("DEVICE%d", n%l.perUser), Mode: mode,
	})
	if err != nil {
		return nil, err
	}
	for _, c := range m.Macaroon.Caveats() {
		if len(c.VerificationId) > 0 {
			return &Login{mode: mode, ID64: wire.EncodeBase64(c.Id)}, nil
		}
	}
	return nil, errors.New("access macaroon without its caveat")
}

// newSome mints n sessions.
func (l *Logins) newSome(n int, mode caveat.Mode) ([]*Login, error) {
	all := make([]*Login, n)
	for i := range all {
		var err error
		if all[i], err = l.New(mode); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// AppendDischarge appends a request for a discharge, with a refresh token unless it
// is empty.
func (l *Logins) AppendDischarge(b []byte, s *Login, token string) []byte {
	return l.append(b, wire.PathDischarge, s, token)
}

// appendLogout appends a logout of the session.
func (l *Logins) appendLogout(b []byte, s *Login) []byte {
	return l.append(b, wire.PathLogout, s, s.token)
}

// The client of all requests.
const (
	UserAgent = "Element/1.11.80 (Linux; bench)"
	ClientIP  = "198.51.100.17"
)

func (l *Logins) append(b []byte, path string, s *Login, token string) []byte {
	var buf [1 << 10]byte
	body := append(append(buf[:0], wire.ParamID64+"="...), s.ID64...)
	if token != "" {
		body = append(append(body, "&"+wire.ParamToken64+"="...), token...)
		body = append(body, "&"+wire.ParamTokenKind+"="+wire.TokenKindRefresh+"&"+wire.ParamRequestID+"="...)
		body = strconv.AppendInt(body, int64(s.tries), 10)
	}
	if s.mode == caveat.ModeHeld {
		body = append(body, "&"+wire.ParamClientIP+"="+ClientIP+"&"+wire.ParamUserAgent+"=Client%2F1.0"...)
	}
	b = append(append(append(b, "POST "...), path...), " HTTP/1.1\r\nHost: bench\r\nUser-Agent: "+UserAgent+
		"\r\nContent-Type: "+wire.ContentTypeForm+"\r\n"+wire.HeaderProtocol+": "+wire.ProtocolVersion+"\r\n"...)
	if s.mode == caveat.ModeHeld {
		b = append(append(b, wire.HeaderAuthorization+": "+wire.AuthorizationPrefix...), l.apiKey...)
		b = append(b, "\r\n"...)
	}
	b = strconv.AppendInt(append(b, "Content-Length: "...), int64(len(body)), 10)
	return append(append(b, "\r\n\r\n"...), body...)
}
