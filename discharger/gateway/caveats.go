package gateway

import (
	"context"

	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/rawmacaroon"
)

// Names of the conditions that a holder can add to a token in mode held, beside
// time-before and client-ip; see the package comment.
const (
	CondReadOnly = "read-only" // no argument
	CondRoom     = "room"      // a room id
)

// checkCondition decides about a condition of a holder's for the request that
// ctx belongs to.
func checkCondition(ctx context.Context, condition string) error {
	name, arg := rawmacaroon.CutCondition(condition)
	x := exchangeOf(ctx)
	switch {
	case x == nil:
		return homeserver.ErrNotMet
	case condition == CondReadOnly:
		if !x.match.Allows(matrix.Limited | matrix.ReadOnly) {
			return homeserver.ErrNotMet
		}
	case name == CondRoom && validRoom(arg):
		if !x.enterRoom(arg) {
			return homeserver.ErrNotMet
		}
	default:
		return homeserver.ErrUnknownCaveat
	}
	return nil
}

func validRoom(id string) bool {
	return len(id) > 1 && len(id) <= 255 && id[0] == '!'
}
