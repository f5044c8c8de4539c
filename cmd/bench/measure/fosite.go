package measure

import (
	"context"
	"fmt"

	"github.com/discharger/discharger/cmd/bench/load"
	"github.com/discharger/discharger/cmd/bench/reference"
	"github.com/discharger/discharger/cmd/bench/server"
	"github.com/discharger/discharger/cmd/bench/workload"
)

// prepareFosite starts the refresh grant of fosite, with as many sessions as the
// service has.
func (r *run) prepareFosite(ctx context.Context) error {
	if r.cfg.Workload != Rotate {
		return fmt.Errorf("only the workload %s is compared with %s", Rotate, reference.Fosite)
	}
	ref, err := server.StartReference(ctx, r.cfg.Self, r.cfg.Procs, reference.Spec{Kind: reference.Fosite})
	if err != nil {
		return err
	}
	s := &subject{name: string(reference.Fosite), target: ref}
	r.subjects = append(r.subjects, s)
	if err := workload.CheckRotation(ctx, ref.Hello.Addr); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	share := r.share()
	s.client, err = load.NewClient(ref.Hello.Addr, r.cfg.Load.Connections, func(int) (load.Player, error) {
		return workload.NewOAuth(share), nil
	})
	return err
}
