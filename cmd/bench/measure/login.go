package measure

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/discharger/discharger/discharger/api"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/keyfile"
)

// logins makes access macaroons for users of its own.
type logins struct {
	ring       *keyfile.Ring
	homeserver *homeserver.Homeserver
	apiKey     string // "": none
	run        string // tells these users from those of another run
	perUser    int64  // sessions of each user
	count      atomic.Int64
}

// newHomeserver returns a homeserver with the keys of a ring, and a cache of so many
// bytes.
func newHomeserver(ring *keyfile.Ring, service caveat.PublicKey, cache int) (*homeserver.Homeserver, error) {
	var keys homeserver.Keys
	for _, k := range ring.Of(keyfile.Root) {
		keys = append(keys, homeserver.Key{Key: k.Secret()})
	}
	return homeserver.New(homeserver.Config{
		Name: ring.Peer.Name, Location: ring.Peer.Service, Discharger: service,
		Keys: keys, KeyPair: ring.Of(keyfile.Seal)[0].Pair(), CacheBytes: cache,
	})
}

// newLogins makes logins of a homeserver, for a service with this public key.
func newLogins(ring *keyfile.Ring, service caveat.PublicKey, perUser int) (*logins, error) {
	h, err := newHomeserver(ring, service, 0)
	if err != nil {
		return nil, err
	}
	var run [4]byte
	rand.Read(run[:])
	l := &logins{ring: ring, homeserver: h, run: hex.EncodeToString(run[:]), perUser: int64(max(perUser, 1))}
	if k := ring.Of(keyfile.API); len(k) > 0 {
		l.apiKey = string(k[0].APIKey())
	}
	return l, nil
}

// elsewhere makes logins of the same homeserver with another service.
func (l *logins) elsewhere(service caveat.PublicKey, perUser int) (*logins, error) {
	return newLogins(l.ring, service, perUser)
}

// login is one session, as a client has it.
type login struct {
	mode  caveat.Mode
	id64  string // the caveat, in base64
	token string // the current refresh token
	first string // the first one, which is older than any that may still arrive
	tries int    // numbers refreshes, for their request-ids
}

// new makes a session that the service does not know yet.
func (l *logins) new(mode caveat.Mode) (*login, error) {
	n := l.count.Add(1) - 1
	m, err := l.homeserver.Mint(homeserver.MintParams{
		User: fmt.Sprintf("@%s-%d:example.org", l.run, n/l.perUser), Device: fmt.Sprintf("DEVICE%d", n%l.perUser), Mode: mode,
	})
	if err != nil {
		return nil, err
	}
	for _, c := range m.Macaroon.Caveats() {
		if len(c.VerificationId) > 0 {
			return &login{mode: mode, id64: api.EncodeBase64(c.Id)}, nil
		}
	}
	return nil, fmt.Errorf("an access macaroon without its caveat")
}

// some makes as many.
func (l *logins) some(n int, mode caveat.Mode) ([]*login, error) {
	all := make([]*login, n)
	for i := range all {
		var err error
		if all[i], err = l.new(mode); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// appendDischarge appends a request for a discharge, with a refresh token or
// none.
func (l *logins) appendDischarge(b []byte, s *login, token string) []byte {
	return l.append(b, api.PathDischarge, s, token)
}

// appendLogout appends a request to end the session.
func (l *logins) appendLogout(b []byte, s *login) []byte {
	return l.append(b, api.PathLogout, s, s.token)
}

const (
	userAgent = "Element/1.11.80 (Linux; bench)"
	clientIP  = "198.51.100.17"
)

func (l *logins) append(b []byte, path string, s *login, token string) []byte {
	var buf [1 << 10]byte
	body := append(append(buf[:0], api.ParamID64+"="...), s.id64...)
	if token != "" {
		body = append(append(body, "&"+api.ParamToken64+"="...), token...)
		body = append(body, "&"+api.ParamTokenKind+"="+api.TokenKindRefresh+"&"+api.ParamRequestID+"="...)
		body = strconv.AppendInt(body, int64(s.tries), 10)
	}
	if s.mode == caveat.ModeHeld {
		body = append(body, "&"+api.ParamClientIP+"="+clientIP+"&"+api.ParamUserAgent+"=Client%2F1.0"...)
	}
	b = append(append(append(b, "POST "...), path...), " HTTP/1.1\r\nHost: bench\r\nUser-Agent: "+userAgent+
		"\r\nContent-Type: "+api.ContentTypeForm+"\r\n"+api.HeaderProtocol+": "+api.ProtocolVersion+"\r\n"...)
	if s.mode == caveat.ModeHeld {
		b = append(append(b, api.HeaderAuthorization+": "+api.AuthorizationPrefix...), l.apiKey...)
		b = append(b, "\r\n"...)
	}
	b = strconv.AppendInt(append(b, "Content-Length: "...), int64(len(body)), 10)
	return append(append(b, "\r\n\r\n"...), body...)
}
