// Package outbox holds how sessions ended, and persists the calls about it that are
// still to be made to the service and the homeserver.
//
// # States
//
// A session that began through the gateway has a device at the homeserver. It ends in
// one of three ways:
//
//	live ──homeserver ended the token──▶ revocation job ──sent──▶ done
//	     ──service: hard end──────────▶ pending logout ──sent──▶ done
//	     ──service: soft end──────────▶ ended softly ──ForgetAfter──▶ pending logout
//
// A revocation job ends sessions at the service: the homeserver has ended their
// tokens already. It is sent at once, and kept if the service does not decide. A job
// that is sent late carries its age, so that it spares sessions that began since.
//
// A pending logout ends a session's token, and the device with it, at the homeserver, so
// that the device does not go on receiving keys. It is sent only if no other session has
// the device, which is checked at the service at every try, under the device's lease. A
// login on the device cancels it. After a soft end the device stays until
// [Config].Periods lets it be forgotten: its user may log in again and keep the keys.
//
// Failed calls are retried with growing intervals, and after a restart.
//
// # File
//
// The file is a bbolt database:
//
//	sessions   session id                  Session
//	by_user    user, 00, session id        device
//	condemned  session id                  PendingLogout
//	orders     sequence number             Job
//	users      user                        when their first session began, Unix ms
//	tried      "at"                        time of the last probe, Unix ms
//
// Nothing in it is needed to verify a token. If it is lost, sessions go on, and
// devices whose sessions end elsewhere stay at the homeserver until their token is
// presented. Tokens in it are sealed.
package outbox

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/discharger/discharger/discharger/cache"
	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/admission"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/gateway/upstream"
	"github.com/discharger/discharger/discharger/homeserver"
)

// Config configures an [Outbox]. Every field is required.
type Config struct {
	Path       string         // of the file
	Client     *client.Client // makes one attempt per call
	Patient    *client.Client // repeats calls; for reconciling
	Homeserver *upstream.Client
	Sealer     *token.Sealer // of the homeserver's tokens
	Leases     *admission.Leases
	Caches     *cache.Budget
	Log        *slog.Logger
	Clock      func() time.Time
	Jitter     func() float64 // in [0, 1)
	Timeouts   Timeouts

	// Periods returns the interval of reconciling, and the time after which the device
	// of a softly ended session is logged out; 0: never.
	Periods func() (reconcile, forget time.Duration)
	// Revoked reports whether the feed has a revocation of a session, and its kind.
	Revoked func(homeserver.Identity) (soft, revoked bool)
	// OnEnd is called with every session that has ended.
	OnEnd func(caveat.SessionID)
	// OnChange is called when sessions have ended, after OnEnd.
	OnChange func()

	ObserveRevocation func(error) // after a revocation was sent to the service
	ObserveLogout     func(error) // after a logout was sent to the homeserver
}

// Timeouts bound the calls of an [Outbox].
type Timeouts struct {
	Service    time.Duration // of a revocation at the service, before it is kept
	Homeserver time.Duration // of requests to the homeserver about many tokens
	Race       time.Duration // for a login through another gateway to reach the service
}

// Outbox holds the ends of sessions, and the calls about them that are still to be
// made. It may be used concurrently.
type Outbox struct {
	cfg     Config
	Store   *Store
	Ends    *Ends                                        // sessions that are over
	vouched *cache.Cache[caveat.SessionID, vouch]        // live sessions of which the feed has a revocation
	events  atomic.Uint64                                // received revocations of more than one session
	gone    *cache.Cache[caveat.SessionID, struct{}]     // sessions whose devices were logged out at the homeserver
	logins  *cache.Cache[admission.DeviceKey, time.Time] // the last login on a device

	gap          chan struct{}             // revocations may have been missed
	reconfigured chan struct{}             // Periods may have changed
	woken        chan struct{}             // a call may be due
	flushing     sync.Mutex                // held during Flush
	sending      chan struct{}             // holds a value while a kept job is sent
	lastPass     atomic.Pointer[passTimes] // of reconciling

	cancel     context.CancelFunc
	background sync.WaitGroup
}

// Open opens the file and loads the ends in it. The caller calls [Outbox.Close].
func Open(cfg Config) (*Outbox, error) {
	b := &Outbox{
		cfg: cfg, gap: make(chan struct{}, 1), reconfigured: make(chan struct{}, 1), woken: make(chan struct{}, 1), sending: make(chan struct{}, 1),
	}
	var errs [4]error
	b.Ends, errs[0] = newEnds(cfg.Caches)
	b.vouched, errs[1] = cache.NewShared(cfg.Caches, 1, cache.ByID[caveat.SessionID, vouch](time.Hour, nil))
	b.gone, errs[2] = cache.NewShared(cfg.Caches, 1, cache.ByID[caveat.SessionID, struct{}](endIdle, nil))
	b.logins, errs[3] = cache.NewShared(cfg.Caches, 1, cache.Config[admission.DeviceKey, time.Time]{
		Idle: endIdle, Size: func(k admission.DeviceKey, _ time.Time) int { return len(k.User) + len(k.Device) },
	})
	err := errors.Join(errs[:]...)
	if err != nil {
		return nil, err
	}
	if b.Store, err = openStore(cfg.Path); err != nil {
		return nil, err
	}
	if err := b.recall(); err != nil {
		return nil, errors.Join(err, b.Store.Close())
	}
	return b, nil
}

// Start makes pending calls, and reconciles, until [Outbox.Stop].
func (b *Outbox) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	b.background.Go(func() { b.run(ctx) })
	b.background.Go(func() { b.reconcileEvery(ctx) })
}

// Stop ends the work in the background, and waits for it.
func (b *Outbox) Stop() {
	b.cancel()
	b.background.Wait()
}

// Close closes the file.
func (b *Outbox) Close() error { return b.Store.Close() }

// Reconfigure makes the outbox read Periods again.
func (b *Outbox) Reconfigure() { signal(b.reconfigured) }

func (b *Outbox) forgetAfter() time.Duration {
	_, forget := b.cfg.Periods()
	return forget
}

// endIdle is how long an unused end is cached.
const endIdle = 48 * time.Hour

// Wake starts a flush.
func (b *Outbox) Wake() { signal(b.woken) }

// signal makes the next receive from a channel of capacity 1 return.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// idlePause is the pause between two flushes without failures.
const idlePause = 10 * time.Minute

// run makes pending calls until ctx ends. Failed calls are retried with growing pauses.
func (b *Outbox) run(ctx context.Context) {
	pauses := backoff.ExponentialBackOff{
		InitialInterval: time.Second, MaxInterval: 5 * time.Minute, Multiplier: 2, RandomizationFactor: backoff.DefaultRandomizationFactor,
	}
	for {
		pause := idlePause
		if err := b.Flush(ctx); err == nil {
			pauses.Reset()
		} else if ctx.Err() != nil {
			return
		} else {
			pause = pauses.NextBackOff()
			b.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "revocation or logout failed, retrying", slog.Any("error", err))
		}
		select {
		case <-time.After(pause):
		case <-b.woken:
		case <-ctx.Done():
			return
		}
	}
}

// Flush sends all revocation jobs and pending logouts, one after the other.
func (b *Outbox) Flush(ctx context.Context) error {
	b.flushing.Lock()
	defer b.flushing.Unlock()
	jobsErr := b.flushJobs(ctx, "")
	if err := b.flushLogouts(ctx); err != nil {
		return err
	}
	return jobsErr
}
