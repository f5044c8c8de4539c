package wire_test

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/macaroon.v2"

	"github.com/discharger/discharger/discharger/bundle"
	"github.com/discharger/discharger/discharger/sse"
	"github.com/discharger/discharger/discharger/wire"
)

func protocol(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestProtocolBodies decodes the bodies of PROTOCOL.md into the types of this package
// and expects the same text when it encodes them again.
func TestProtocolBodies(t *testing.T) {
	t.Parallel()
	types := map[string]any{
		"DischargeResponse": wire.DischargeResponse{}, "SessionsResponse": wire.SessionsResponse{}, "InfoResponse": wire.InfoResponse{},
		"ErrorResponse": wire.ErrorResponse{}, "Revoked": wire.Revoked{}, "RevokeRequest": wire.RevokeRequest{},
		"RevokeResponse": wire.RevokeResponse{}, "SeenRequest": wire.SeenRequest{}, "EndedResponse": wire.EndedResponse{}, "Mark": wire.Mark{},
	}
	blocks := regexp.MustCompile("(?s)```json (\\w+)\n(.*?)\n```").FindAllStringSubmatch(protocol(t), -1)
	seen := make(map[string]bool)
	for _, block := range blocks {
		name, body := block[1], block[2]
		seen[name] = true
		t.Run(name, func(t *testing.T) {
			if types[name] == nil {
				t.Fatal("type is unknown")
			}
			v := reflect.New(reflect.TypeOf(types[name]))
			d := json.NewDecoder(strings.NewReader(body))
			d.DisallowUnknownFields()
			if err := d.Decode(v.Interface()); err != nil {
				t.Fatal(err)
			}
			again, err := json.Marshal(v.Interface())
			if err != nil || string(again) != body {
				t.Errorf("encoded again: %s, %v", again, err)
			}
		})
	}
	if len(seen) != len(types) {
		t.Errorf("bodies of %d types, want %d", len(seen), len(types))
	}
}

// TestProtocolFeed reads the stream of PROTOCOL.md.
func TestProtocolFeed(t *testing.T) {
	t.Parallel()
	_, section, _ := strings.Cut(protocol(t), "## 6.")
	var stream bytes.Buffer
	started := false
	for line := range strings.Lines(section) {
		text, code := strings.CutPrefix(line, "    ")
		switch {
		case code:
			started = true
			stream.WriteString(text)
		case started && line == "\n":
			stream.WriteString(line)
		case started:
			goto read
		}
	}
read:
	in, revocations := sse.NewReader(&stream, 16<<10), 0
	for {
		e, err := in.Next()
		if err != nil {
			break
		}
		switch e.Name {
		case wire.EventRevocation:
			revocations++
			checkRevocation(t, e.Data)
		case wire.EventCurrent:
			var state wire.FeedState
			if err := json.Unmarshal([]byte(e.Data), &state); err != nil || state.Heartbeat != 10000 {
				t.Errorf("%s: %+v, %v", e.Data, state, err)
			}
		}
	}
	if revocations != 2 {
		t.Errorf("%d revocations, want 2", revocations)
	}
}

// TestProtocolPaths expects every path and parameter of the contract in PROTOCOL.md.
func TestProtocolPaths(t *testing.T) {
	t.Parallel()
	text := protocol(t)
	for _, word := range []string{
		wire.PathDischarge, wire.PathLogout, wire.PathOwnSessions, wire.PathRevokeOwn, wire.PathInfo, wire.PathPublicKey,
		wire.PathUserSessions, wire.PathUserSession, wire.PathUserDevice, wire.PathSessions, wire.PathRevoke, wire.PathMarks,
		wire.PathSeen, wire.PathRevocations, wire.PathServiceReady,
		wire.ParamID64, wire.ParamCaveat64, wire.ParamToken64, wire.ParamTokenKind, wire.ParamRequestID, wire.ParamScope, wire.ParamSession,
		wire.ParamClientIP, wire.ParamUserAgent, wire.ParamExcept, wire.ParamExceptDevice, wire.ParamDevices, wire.ParamKind, wire.ParamAge,
		wire.ParamEpoch, wire.ParamEnded,
		wire.CodeBadRequest, wire.CodePermissionDenied, wire.CodeUnauthorized, wire.CodeNotFound, wire.CodeMethodNotAllowed,
		wire.CodeTooLarge, wire.CodeTooManyRequests, wire.CodeUnavailable,
		wire.ReasonSessionEnded, wire.ReasonSessionExpired, wire.ReasonSessionLost, wire.ReasonReplaced, wire.ReasonTokenRequired,
		wire.ReasonTokenInvalid, wire.ReasonTokenSuperseded, wire.ReasonTokenReused, wire.ReasonHomeserverRequired, wire.ReasonPolicy,
		wire.EventRevocation, wire.EventGap, wire.EventCurrent, wire.HeaderLastEventID, wire.HeaderRetryAfter,
	} {
		if !strings.Contains(text, word) {
			t.Errorf("PROTOCOL.md lacks %q", word)
		}
	}
}

// TestProtocolBundle verifies the test vector of PROTOCOL.md with the macaroon library.
func TestProtocolBundle(t *testing.T) {
	t.Parallel()
	text := protocol(t)
	for _, form := range []string{"standard", "compact"} {
		t.Run(form, func(t *testing.T) {
			block := regexp.MustCompile("(?s)```" + form + "\n(.*?)\n```").FindStringSubmatch(text)
			if block == nil {
				t.Fatal("vector is missing")
			}
			vector := strings.ReplaceAll(block[1], "\n", "")
			s, err := bundle.Decode(vector)
			if err != nil {
				t.Fatal(err)
			}
			conditions, err := s[0].VerifySignature([]byte("root key"), s[1:])
			if err != nil || len(conditions) != 1 || conditions[0] != "time-before 2030-01-01T00:00:00Z" {
				t.Errorf("conditions %q, %v", conditions, err)
			}
			if c := s[0].Caveats()[0]; string(c.Id) != "caveat 1" || !bytes.HasPrefix(c.VerificationId, make([]byte, 24)) || string(s[0].Id()) != "alice" {
				t.Errorf("caveat %q of %q", c.Id, s[0].Id())
			}
			encode := map[string]func(macaroon.Slice) (string, error){"standard": bundle.EncodeStandard, "compact": bundle.Encode}[form]
			if again, err := encode(s); err != nil || again != vector {
				t.Errorf("encoded again: %s, %v", again, err)
			}
		})
	}
}
