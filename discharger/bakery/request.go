package bakery

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/go-macaroon-bakery/macaroon-bakery/v3/bakery"
	"github.com/go-macaroon-bakery/macaroon-bakery/v3/httpbakery"
	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/clientaddr"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/wire"
)

type (
	requestKey struct{} // of a homeserver.Request
	validKey   struct{} // of a func() bool
)

// Context returns the context of a request, with the address of its client for
// client-ip conditions and the request for the conditions of httpbakery.
func (o *Oven) Context(r *http.Request) context.Context {
	request := homeserver.Request{ClientIP: clientaddr.Of(r, o.cfg.TrustedProxies).Addr, HTTP: r}
	ctx := context.WithValue(httpbakery.ContextWithRequest(r.Context(), r), requestKey{}, request)
	return context.WithValue(ctx, validKey{}, sync.OnceValue(func() bool {
		return slices.ContainsFunc(RequestMacaroons(r), func(ms macaroon.Slice) bool {
			_, err := o.verify(ctx, ms)
			return err == nil
		})
	}))
}

// requestOf returns the request of a context, and the zero value without one.
func requestOf(ctx context.Context) homeserver.Request {
	r, _ := ctx.Value(requestKey{}).(homeserver.Request)
	return r
}

// maxMacaroons bounds the slices of macaroons that are read from a request.
const maxMacaroons = 16

// RequestMacaroons returns the macaroons in the cookies and headers of a request, as
// httpbakery.RequestMacaroons does, but strictly: malformed and oversized values are
// left out, and no value makes it panic.
func RequestMacaroons(r *http.Request) []macaroon.Slice {
	var values []string
	for _, c := range r.Cookies() {
		if strings.HasPrefix(c.Name, "macaroon-") {
			values = append(values, c.Value)
		}
	}
	values = append(values, r.Header.Values(httpbakery.MacaroonsHeader)...)
	var all []macaroon.Slice
	for _, v := range values {
		if ms, ok := parseMacaroons(v); ok && len(all) < maxMacaroons {
			all = append(all, ms)
		}
	}
	return all
}

// parseMacaroons parses a JSON array of macaroons in base64. Only objects reach the
// decoder of the macaroon library, which panics on other input.
func parseMacaroons(value string) (macaroon.Slice, bool) {
	if len(value) > 2*bundle.MaxLength {
		return nil, false
	}
	data, err := wire.DecodeBase64(value)
	if err != nil {
		return nil, false
	}
	var list []json.RawMessage
	if err := json.Unmarshal(data, &list); err != nil || len(list) == 0 || len(list) > bundle.MaxMacaroons {
		return nil, false
	}
	ms := make(macaroon.Slice, len(list))
	for i, raw := range list {
		if raw[0] != '{' {
			return nil, false
		}
		a, err := client.ParseAccess(raw)
		if err != nil || a.External != nil {
			return nil, false
		}
		ms[i] = a.Macaroon
	}
	return ms, true
}

// Refusal returns the error of package homeserver in an error of this package or of
// bakery.Checker, which hides it from errors.As; nil if there is none.
func Refusal(err error) *homeserver.Error {
	for err != nil {
		var refusal *homeserver.Error
		if errors.As(err, &refusal) {
			return refusal
		}
		switch e := err.(type) {
		case *bakery.VerificationError:
			err = e.Reason
		case interface{ Underlying() error }: // errgo
			err = e.Underlying()
		default:
			return nil
		}
	}
	return nil
}

// WriteError answers an error of an authorization: 503 for an undecided one, after
// which the client keeps its session and retries; 401 with the code "permission
// denied" for a refused one, which httpbakery.WriteError answers 500; and the answer
// of httpbakery.WriteError for all others.
func WriteError(ctx context.Context, w http.ResponseWriter, err error) {
	refusal := Refusal(err)
	if refusal != nil && refusal.Undecided() {
		w.Header().Set("Content-Type", wire.ContentType)
		w.Header().Set(wire.HeaderRetryAfter, "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(wire.ErrorResponse{Code: wire.CodeUnavailable, Message: "session state is unknown"})
		return
	}
	caused, _ := err.(interface{ Cause() error }) // errgo
	if refusal != nil || caused != nil && caused.Cause() == bakery.ErrPermissionDenied {
		err = &httpbakery.Error{Code: httpbakery.ErrPermissionDenied, Message: err.Error()}
	}
	httpbakery.WriteError(ctx, w, err)
}
