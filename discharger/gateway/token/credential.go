package token

import (
	"net/http"
	"net/url"
	"strings"
)

// Credential is the access token that a request carries.
type Credential struct {
	Text    string // empty: none
	Kind    Kind
	InQuery bool
	Query   string // with InQuery: the raw query without the token
}

// Names of access tokens in requests.
const (
	HeaderAuthorization = "Authorization"
	Bearer              = "Bearer "
	ParamAccessToken    = "access_token"
)

// FindCredential returns the access token of a request. Like homeservers, it returns an
// error for tokens in both places, or for two in one. The error is the text of the
// answer.
func FindCredential(r *http.Request) (Credential, error) {
	var c Credential
	values := r.Header[HeaderAuthorization]
	if len(values) > 1 {
		return c, credentialError("Too many Authorization headers.")
	}
	if len(values) == 1 {
		if text, ok := strings.CutPrefix(values[0], Bearer); ok {
			c = Credential{Text: text, Kind: KindOf(text)}
		} else if len(values[0]) >= len(Bearer) && strings.EqualFold(values[0][:len(Bearer)], Bearer) {
			return c, credentialError("Invalid Authorization header.")
		}
	}
	if !mayHold(r.URL.RawQuery) {
		return c, nil
	}
	rest, tokens := CutQuery(r.URL.RawQuery)
	switch {
	case len(tokens) == 0:
		return c, nil
	case len(values) > 0:
		return Credential{}, credentialError("Mixing Authorization headers and access_token query parameters is not allowed.")
	case len(tokens) > 1:
		return Credential{}, credentialError("Too many access_token query parameters.")
	}
	return Credential{Text: tokens[0], Kind: KindOf(tokens[0]), InQuery: true, Query: rest}, nil
}

// mayHold is false for most queries without a token, at little cost.
func mayHold(query string) bool {
	return query != "" && (strings.Contains(query, ParamAccessToken) || strings.ContainsAny(query, "%+"))
}

// CutQuery removes every access_token from a raw query, and leaves the rest of it
// unchanged. Homeservers differ in whether a semicolon separates parameters; here it
// does, so that no token is overlooked.
func CutQuery(query string) (rest string, tokens []string) {
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

// tokenIn returns the token in a parameter, if it is an access_token.
func tokenIn(part string) (string, bool) {
	name, value, _ := strings.Cut(part, "=")
	if name != ParamAccessToken {
		if !strings.ContainsAny(name, "%+") {
			return "", false
		}
		if decoded, err := url.QueryUnescape(name); err != nil || decoded != ParamAccessToken {
			return "", false
		}
	}
	if decoded, err := url.QueryUnescape(value); err == nil {
		value = decoded
	}
	return value, true
}

// credentialError is the text of the answer to a request with ambiguous tokens.
type credentialError string

// Error implements error.
func (e credentialError) Error() string { return string(e) }
