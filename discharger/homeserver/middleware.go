package homeserver

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/discharger/discharger/discharger/clientaddr"
)

// MiddlewareOptions configure [Middleware]. The zero value is for a homeserver
// without a proxy in front.
type MiddlewareOptions struct {
	// TrustedProxies are the addresses of proxies whose X-Forwarded-For is
	// believed; see package clientaddr. Nil: the client is the peer.
	TrustedProxies []netip.Prefix
	// Optional passes on a request without a token, with no identity in its
	// context, for routes that are open to guests. A request with a token that
	// does not verify is refused all the same.
	Optional bool
	// WriteError answers a refused request. Nil: [WriteError].
	WriteError func(http.ResponseWriter, *http.Request, *Error)
}

// Middleware returns a wrapper that passes a request on if it has a bundle that
// verifies. [IdentityFrom] returns its identity. All other requests are answered, by
// default as the Matrix client-server API specifies; see [WriteError].
//
// The bundle is the bearer token of the only header Authorization (RFC 6750; the
// scheme in any case). Two headers, another scheme and anything after the token are
// malformed. The query parameter access_token is not read: URLs end up in logs.
//
// A CORS handler has to wrap the middleware: browsers send a preflight OPTIONS without
// a token, which the middleware answers 401 as any other request.
//
// The *http.Request is in [Request.HTTP], for [Config.Check].
func Middleware(h *Homeserver, o MiddlewareOptions) func(http.Handler) http.Handler {
	if o.WriteError == nil {
		o.WriteError = WriteError
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token, err := bearerToken(r)
			if err == nil && token == "" && o.Optional {
				if _, other := IdentityFrom(r.Context()); other { // of a middleware before this one
					r = r.WithContext(context.WithValue(r.Context(), identityKey{}, nil))
				}
				next.ServeHTTP(w, r)
				return
			}
			var id Identity
			switch {
			case err != nil:
				err = &Error{Kind: ErrMalformed, Err: err}
			case token == "":
				err = &Error{Kind: ErrNoToken}
			default:
				from := clientaddr.Of(r, o.TrustedProxies)
				id, err = h.Verify(r.Context(), token, Request{ClientIP: from.Addr, HTTP: r})
			}
			if err != nil {
				var e *Error
				if !errors.As(err, &e) { // of no kind: nothing was decided
					e = &Error{Kind: ErrUndecided, Err: err}
				}
				o.WriteError(w, r, e)
				return
			}
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, id)))
		})
	}
}

type identityKey struct{}

// IdentityFrom returns the identity of the request whose context it is. ok is false
// if the request did not pass through [Middleware], or has no token.
func IdentityFrom(ctx context.Context) (id Identity, ok bool) {
	id, ok = ctx.Value(identityKey{}).(Identity)
	return id, ok
}

var errAuthorization = errors.New("header Authorization is not one bearer token")

// bearerToken returns the token of a request; empty if there is no Authorization.
func bearerToken(r *http.Request) (string, error) {
	values := r.Header["Authorization"]
	if len(values) == 0 {
		return "", nil
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	token = strings.Trim(token, " ")
	if len(values) > 1 || !strings.EqualFold(scheme, "Bearer") || token == "" {
		return "", errAuthorization
	}
	return token, nil
}

// retryAfter is the time after which a client repeats an undecided request.
const retryAfter = 2 * time.Second

// WriteError answers a refused request like a Matrix homeserver: with
// [Error.StatusCode] and a JSON object of errcode, error, with status 401
// soft_logout, and with status 503 retry_after_ms beside the header Retry-After. The
// text is that of the kind of error; it contains nothing of the bundle.
func WriteError(w http.ResponseWriter, _ *http.Request, e *Error) {
	body := struct {
		Code         string `json:"errcode"`
		Message      string `json:"error"`
		SoftLogout   *bool  `json:"soft_logout,omitempty"`
		RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
	}{Code: e.Code(), Message: "Access token: " + e.Kind.Error() + "."}
	h := w.Header()
	status := e.StatusCode()
	switch status {
	case http.StatusUnauthorized:
		soft := e.SoftLogout()
		body.SoftLogout = &soft
		h.Set("WWW-Authenticate", "Bearer")
	case http.StatusServiceUnavailable:
		body.RetryAfterMS = retryAfter.Milliseconds()
		h.Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
	}
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has gone
}
