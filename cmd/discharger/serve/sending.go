package serve

import (
	"context"

	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/setup"
	"github.com/discharger/discharger/config"
	"github.com/discharger/discharger/discharger/secevent"
)

// sender returns the sender of security events; nil: no receivers are configured.
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

// sending is a running sender. A nil sending is none.
type sending struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// send runs a sender in the background, after the one before has ended; either may be
// nil. The end may take seconds, since it may have to interrupt a read of the feed.
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

// end stops the sender and waits for it. Undelivered events stay in the feed.
func (s *sending) end() {
	if s != nil {
		s.cancel()
		<-s.done
	}
}
