package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/wire"
)

// rejected looks at a 401 of the homeserver's. If the token is unknown there, the
// session is over, and must not be refreshed any more. A question for a password,
// and a locked account, is no end.
func (g *Gateway) rejected(resp *http.Response, x *exchange) error {
	body, err := readAnswer(resp)
	if err != nil {
		return err
	}
	if body.get("flows") != nil || body.get("session") != nil {
		return nil
	}
	if code, _ := body.text("errcode"); code != codeUnknownToken {
		return nil
	}
	ctx := resp.Request.Context()
	who := forWhom{x.client, resp.Request.UserAgent()}
	v, err := g.knownUpstream(ctx, x.upstream, who)
	if err != nil {
		g.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "homeserver does not say whether it knows a token", slog.Any("error", err))
		return failed{undecided(0)}
	}
	if v.known {
		return nil
	}
	e, err := g.lostUpstream(ctx, x, v)
	if err != nil {
		return failed{g.refusal(ctx, err)}
	}
	if soft := body.get("soft_logout").Kind() == 't'; e.soft != soft {
		return failed{g.refusal(ctx, e.refused())}
	}
	return nil
}

// verdict is the homeserver's word about a token of its own.
type verdict struct {
	known  bool
	soft   bool // of one that is not known: soft_logout
	silent bool // soft_logout is missing
}

// knownUpstream asks the homeserver whether it knows its own token. A single 401
// is not believed: the homeserver passes on answers of other servers, identity
// servers for instance, and a session is not to end by that.
func (g *Gateway) knownUpstream(ctx context.Context, token string, who forWhom) (verdict, error) {
	status, body, err := g.whoami(ctx, token, who)
	if err != nil {
		return verdict{}, err
	}
	code, _ := body.text("errcode")
	switch {
	case status == http.StatusUnauthorized && code == codeUnknownToken:
		softLogout := body.get("soft_logout")
		return verdict{soft: softLogout.Kind() == 't', silent: softLogout == nil}, nil
	case status == http.StatusOK, status == http.StatusUnauthorized, status == http.StatusForbidden:
		return verdict{known: true}, nil
	}
	return verdict{}, errUndecided
}

// A homeserver that allows a device one token kills the older one at a login, and
// answers for it as for a token whose device is deleted. But then the device with
// its keys is still there. So where such an answer has no soft_logout, a session that is as young as racing logins are, and one whose
// device had a login through this process since, ended softly; of any other, the
// service is asked again after a pause in which a login through another gateway
// comes to the service.
const raceWindow = 2 * time.Minute

// lostUpstream ends a session whose token the homeserver does not know any more,
// as the homeserver's answer has it, and returns how it ended. If the service has ended it
// before, for a newer login on its device above all, that is how. Nothing is
// logged out at the homeserver.
func (g *Gateway) lostUpstream(ctx context.Context, x *exchange, v verdict) (ending, error) {
	id := x.identity
	if err := g.lease(ctx, x, id.User, id.Device); err != nil {
		return ending{}, &client.UnavailableError{Err: err}
	}
	if e, dead := g.dead.get(id.Session); dead {
		return e, nil
	}
	s, err := g.standing(ctx, id.User, id.Device, id.Session)
	if err == nil && s.live && v.silent && id.Device != "" {
		if v.soft = g.racing(id); !v.soft && sleep(ctx, g.cfg.patience.race) {
			s, err = g.standing(ctx, id.User, id.Device, id.Session)
		}
	}
	if err != nil {
		return ending{}, err
	}
	if s.live {
		out, err := g.once.RevokeSession(ctx, id.User, id.Session, wire.RevokeOptions{Soft: v.soft})
		g.metrics.orders.WithLabelValues(resultOf(err)).Inc()
		switch {
		case err != nil:
			return ending{}, err
		case out.Ended > 0:
			e := ending{soft: v.soft, reason: wire.RevokedOrder, message: "the homeserver has ended it"}
			if v.soft && !v.silent {
				e.message = "it has expired at the homeserver"
			}
			g.forgetLost(ctx, id, e)
			return e, nil
		}
		if s, err = g.standing(ctx, id.User, id.Device, id.Session); err != nil {
			return ending{}, err
		}
		if s.live {
			return ending{}, &client.UnavailableError{Err: errors.New("session is live after its revocation")}
		}
	}
	g.forgetLost(ctx, id, s.ending())
	return s.ending(), nil
}

// racing reports whether a session's token may have been killed by a login on its
// device.
func (g *Gateway) racing(id homeserver.Identity) bool {
	at, ok := g.logins.get(deviceKey(id.User, id.Device))
	return ok && at.After(id.Minted) || g.cfg.Clock().Sub(id.Minted) < raceWindow
}

// forgetLost remembers the end of a session whose token is not known at the
// homeserver, where so nothing is left to be done.
func (g *Gateway) forgetLost(ctx context.Context, id homeserver.Identity, e ending) {
	e.settled = true
	g.dead.put(id.Session, e)
	g.endHere(ctx, order{Op: endSession, User: id.User, Session: id.Session})
	g.opened.remove(id.Session)
	g.held.drop(id.Session)
}
