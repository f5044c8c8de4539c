package service

import (
	"log/slog"
	"time"

	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/admission"
)

// Config configures a [Client]. Every field is required.
type Config struct {
	Client *client.Client // makes one attempt per call
	Caches *cache.Budget  // of discharges and verified tokens
	Log    *slog.Logger
	Clock  func() time.Time
	Jitter func() float64 // in [0, 1)

	ObserveDischarge func(op string, err error) // after a call for a discharge
	ObserveSeen      func(n int, err error)     // after a report of epochs
}

// Client makes the calls to the service on which requests depend. It may be used
// concurrently.
type Client struct {
	cfg        Config
	API        *client.Client
	Link       *Link
	Waiting    *admission.WaitingRoom
	ready      readiness
	renewals   renewals
	Discharges *Discharges
	Epochs     *Epochs
}

// New returns a client. It makes no call.
func New(cfg Config) (*Client, error) {
	c := &Client{cfg: cfg, API: cfg.Client, Link: newLink(cfg.Jitter, cfg.Clock), Waiting: admission.NewWaitingRoom()}
	var err error
	if c.Discharges, err = newDischarges(c); err != nil {
		return nil, err
	}
	if c.Epochs, err = newEpochs(c); err != nil {
		return nil, err
	}
	return c, nil
}
