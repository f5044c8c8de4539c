package serve

import (
	"context"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/secevent"
)

// sender sends security events as a configuration says; nil: it has no receivers.
func (p *parts) sender(cfg *config.Config, keys *secevent.Keys) (*secevent.Sender, error) {
	if keys == nil {
		return nil, nil
	}
	s, err := secevent.New(secevent.Config{
		Feed: p.store, Receivers: setup.Receivers(cfg), Issuer: cfg.PublicURL, Keys: keys, Dir: cfg.DataDir,
		Metrics: p.told, Log: p.log,
	})
	return s, command.Mark(err, command.ErrConfig)
}

// sending is a sender at work. Nil: there is none.
type sending struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// send runs a sender in the place of another one, which ends first; either may be
// nil. It does not wait for that: a read of the feed ends after seconds.
func send(s *secevent.Sender, before *sending) *sending {
	if s == nil && before == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	running := &sending{cancel: cancel, done: make(chan struct{})}
	if before != nil {
		before.cancel()
	}
	go func() {
		defer close(running.done)
		if before != nil {
			<-before.done
		}
		if s != nil {
			s.Run(ctx)
		}
	}()
	return running
}

// end returns when nothing is under way. What was not delivered is in the feed.
func (s *sending) end() {
	if s != nil {
		s.cancel()
		<-s.done
	}
}
