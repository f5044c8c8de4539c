package gateway

import (
	"crypto/sha256"
	"net/http"
	"strings"
	"time"
)

// questions remembers what clients asked for with the first request of a
// registration. The homeserver answers that with questions, such as for an
// address of mail, and a name for them; the requests that answer need to say
// nothing but that name, and the homeserver takes the rest from the first. So
// does the gateway with what it keeps from the homeserver: that the client wants
// a refresh token.
//
// The memory is bounded in number and in time, and it is of this process. Where
// it does not reach, after a restart or when another gateway gets the last
// request, a client that said it only in the first has mode held: it gets a
// token that works, without a refresh token.
type questions struct {
	kept *recent[[sha256.Size]byte, asked]
}

// asked is what was asked for.
type asked struct {
	login login
	until time.Time
}

const (
	maxQuestions  = 10000
	questionsLife = 48 * time.Hour // Synapse waits for answers as long

	maxDevice = 255 // bytes of a name; no session is minted on a longer one

	memberAuth    = "auth"
	memberSession = "session"
)

func newQuestions() questions {
	return questions{newRecent[[sha256.Size]byte, asked](maxQuestions)}
}

// resume takes over what the client asked for when it got the questions that
// it now answers. What it says again counts more.
func (g *Gateway) resume(x *exchange, body object) {
	auth, err := parseObject(body.get(memberAuth))
	if err != nil {
		return
	}
	name, _ := auth.text(memberSession)
	if name == "" {
		return
	}
	x.login.asked = name
	if q, ok := g.questions.kept.get(sha256.Sum256([]byte(name))); ok && g.cfg.Clock().Before(q.until) {
		x.login.rotate, x.login.device = q.login.rotate, q.login.device
	}
}

// questioned looks at a 401 of the homeserver's to a request for a token. If it
// asks something, what the client asked for is kept under the name of that.
func (g *Gateway) questioned(resp *http.Response, x *exchange) error {
	if !x.login.rotate && x.login.device == "" && x.login.asked == "" {
		return nil // nothing was asked for that could be forgotten
	}
	if enc := strings.ToLower(resp.Header.Get("Content-Encoding")); enc != "" && enc != "gzip" && enc != "identity" {
		return nil // it cannot be read
	}
	data, err := readResponse(resp)
	if err != nil {
		return err
	}
	body, err := parseObject(data)
	if err != nil {
		return nil
	}
	name, _ := body.text(memberSession)
	if name == "" || body.get("flows") == nil {
		return nil
	}
	kept := login{rotate: x.login.rotate}
	if len(x.login.device) <= maxDevice {
		kept.device = x.login.device
	}
	g.questions.kept.put(sha256.Sum256([]byte(name)), asked{kept, g.cfg.Clock().Add(questionsLife)})
	return nil
}
