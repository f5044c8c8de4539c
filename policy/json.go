package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/discharger/discharger/config/yamlfile"
)

// jsonDuration is a duration in JSON: a string in the form of Go and CEL, "300s" or
// "1h30m", because programs in other languages read webhook requests and audit logs.
type jsonDuration time.Duration

func (d jsonDuration) MarshalJSON() ([]byte, error) {
	return json.Marshal(time.Duration(d).String())
}

func (d *jsonDuration) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("duration: want a string such as \"90s\", got %.60s", data)
	}
	v, err := yamlfile.ParseDuration(s)
	if err != nil {
		return err
	}
	*d = jsonDuration(v)
	return nil
}

// jsonGrant is Grant with durations as strings.
type jsonGrant struct {
	TTL     jsonDuration `json:"ttl"`
	MaxTTL  jsonDuration `json:"max_ttl"`
	Revokes bool         `json:"revokes"`
}

// MarshalJSON writes durations as strings.
func (g Grant) MarshalJSON() ([]byte, error) {
	return json.Marshal(jsonGrant{jsonDuration(g.TTL), jsonDuration(g.MaxTTL), g.Revokes})
}

// UnmarshalJSON reads durations from strings. Fields missing from the JSON are unchanged.
func (g *Grant) UnmarshalJSON(data []byte) error {
	j := jsonGrant{jsonDuration(g.TTL), jsonDuration(g.MaxTTL), g.Revokes}
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*g = Grant{time.Duration(j.TTL), time.Duration(j.MaxTTL), j.Revokes}
	return nil
}

// jsonDecision is Decision with durations as strings.
type jsonDecision struct {
	Effect       Effect            `json:"effect"`
	TTL          jsonDuration      `json:"ttl,omitempty"`
	Caveats      []string          `json:"caveats,omitempty"`
	Code         string            `json:"code,omitempty"`
	Message      string            `json:"message,omitempty"`
	SoftLogout   bool              `json:"soft_logout,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	KeepSessions int               `json:"keep_sessions,omitempty"`
	RetryAfter   jsonDuration      `json:"retry_after,omitempty"`
	Rule         string            `json:"rule,omitempty"`
	Hash         string            `json:"hash,omitempty"`
}

// MarshalJSON writes durations as strings.
func (d Decision) MarshalJSON() ([]byte, error) {
	return json.Marshal(jsonDecision{
		d.Effect, jsonDuration(d.TTL), d.Caveats, d.Code, d.Message, d.SoftLogout,
		d.Labels, d.KeepSessions, jsonDuration(d.RetryAfter), d.Rule, d.Hash,
	})
}

// UnmarshalJSON reads durations from strings.
func (d *Decision) UnmarshalJSON(data []byte) error {
	var j jsonDecision
	if err := json.Unmarshal(data, &j); err != nil {
		return err
	}
	*d = j.decision()
	return nil
}

func (j jsonDecision) decision() Decision {
	return Decision{
		Effect: j.Effect, TTL: time.Duration(j.TTL), Caveats: j.Caveats, Code: j.Code, Message: j.Message,
		SoftLogout: j.SoftLogout, Labels: j.Labels, KeepSessions: j.KeepSessions,
		RetryAfter: time.Duration(j.RetryAfter), Rule: j.Rule, Hash: j.Hash,
	}
}

// ParseDecision decodes the answer of a webhook: one JSON object without unknown keys, with a
// known effect and every part within the limits. Rule and hash are dropped.
func ParseDecision(data []byte) (Decision, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	var j jsonDecision
	if err := decoder.Decode(&j); err != nil {
		return Decision{}, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return Decision{}, errors.New("trailing data after the decision")
	}
	d := j.decision()
	if d.TTL != 0 && d.TTL < MinTTL {
		return Decision{}, fmt.Errorf("ttl: want at least %s, got %s", MinTTL, d.TTL)
	}
	d.Rule, d.Hash = "", ""
	// The grant is unknown: check the limits that hold for every grant.
	if _, err := d.Narrow(Grant{TTL: MinTTL, MaxTTL: MinTTL}); err != nil {
		return Decision{}, err
	}
	return d, nil
}
