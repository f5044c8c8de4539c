package gateway

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/discharger/discharger/discharger/gateway/token"
)

// credential is the access token that a request carries.
type credential struct {
	token string // empty: none
	kind  token.Kind
	query string // what is left of the raw query if the token was in there
	from  source
}

// source says where a token was.
type source uint8

const (
	fromNowhere source = iota
	fromHeader
	fromQuery
)

const (
	headerAuthorization = "Authorization"
	bearer              = "Bearer "
	paramAccessToken    = "access_token"
)

// findCredential finds the access token of a request. It is refused where
// homeservers would refuse it too: in two places at once, or twice in one.
func findCredential(r *http.Request) (credential, *failure) {
	var c credential
	values := r.Header[headerAuthorization]
	if len(values) > 1 {
		return c, missingToken("Too many Authorization headers.")
	}
	if len(values) == 1 {
		if text, ok := strings.CutPrefix(values[0], bearer); ok {
			c = credential{token: text, kind: token.KindOf(text), from: fromHeader}
		} else if len(values[0]) >= len(bearer) && strings.EqualFold(values[0][:len(bearer)], bearer) {
			return c, missingToken("Invalid Authorization header.")
		}
	}
	if !mayHold(r.URL.RawQuery) {
		return c, nil
	}
	rest, tokens := cutToken(r.URL.RawQuery)
	switch {
	case len(tokens) == 0:
		return c, nil
	case len(values) > 0:
		return credential{}, missingToken("Mixing Authorization headers and access_token query parameters is not allowed.")
	case len(tokens) > 1:
		return credential{}, missingToken("Too many access_token query parameters.")
	}
	return credential{token: tokens[0], kind: token.KindOf(tokens[0]), query: rest, from: fromQuery}, nil
}

// mayHold is a quick look that lets nearly every query pass.
func mayHold(query string) bool {
	return query != "" && (strings.Contains(query, paramAccessToken) || strings.ContainsAny(query, "%+"))
}

// cutToken takes every access_token out of a raw query, and leaves the rest of
// it as it is, byte by byte. Homeservers differ in whether a semicolon
// separates parameters; here it does, since a token must not be overlooked.
func cutToken(query string) (rest string, tokens []string) {
	var b strings.Builder
	kept, before := false, ""
	for {
		part, separator := query, ""
		if end := strings.IndexAny(query, "&;"); end >= 0 {
			part, separator, query = query[:end], query[end:end+1], query[end+1:]
		}
		if token, ok := tokenIn(part); ok {
			tokens = append(tokens, token)
		} else {
			if kept {
				b.WriteString(before)
			}
			b.WriteString(part)
			kept = true
		}
		if before = separator; separator == "" {
			return b.String(), tokens
		}
	}
}

// tokenIn reads one parameter.
func tokenIn(part string) (string, bool) {
	name, value, _ := strings.Cut(part, "=")
	if name != paramAccessToken {
		if !strings.ContainsAny(name, "%+") {
			return "", false
		}
		if decoded, err := url.QueryUnescape(name); err != nil || decoded != paramAccessToken {
			return "", false
		}
	}
	if decoded, err := url.QueryUnescape(value); err == nil {
		value = decoded
	}
	return value, true
}
