package gateway

import (
	"context"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// checkCondition decides about a condition of a holder's for the request that
// ctx belongs to.
func checkCondition(ctx context.Context, c homeserver.Caveat) error {
	name, arg := rawmacaroon.CutCondition(c.Condition)
	x := exchangeOf(ctx)
	switch {
	case x == nil:
		return homeserver.ErrNotMet
	case c.Condition == token.CondReadOnly:
		if !x.match.Allows(matrix.Limited | matrix.ReadOnly) {
			return homeserver.ErrNotMet
		}
	case name == token.CondRoom && token.ValidRoom(arg):
		if !x.enterRoom(arg) {
			return homeserver.ErrNotMet
		}
	default:
		return homeserver.ErrUnknownCaveat
	}
	return nil
}
