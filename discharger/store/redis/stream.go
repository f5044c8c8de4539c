package redis

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/store"
	"github.com/discharger/discharger/discharger/store/journal"
)

// Processes with a journal exchange revocations through a stream in Redis: a process
// adds its own after they took effect and before they are acknowledged, and writes
// those of other processes to its journal.
//
// An entry of the stream has two fields: p, the random id of the process, and
// e, a nonce and the sealed entry of the journal. The key is derived from the
// tag key and the id, so without the tag key an entry can be neither read nor forged.
//
// The stream is read by the ids of its entries. In another primary they can
// start again, so after every replay the stream is read from the start of the
// window of the journal, and entries that are in the journal are skipped. A
// revocation can arrive after a failover that lost it, above all in a cluster,
// where it and the stream are on different nodes. Therefore a revocation that
// is not clearly younger than the last failover is applied at once.

const (
	streamLength = 100_000     // length of the stream, about
	streamBatch  = 500         // entries read at once
	streamBlock  = time.Second // how long a read waits for an entry
	processLen   = 16
	nonceLen     = 12 // of GCM
)

// stream exchanges revocations with the other processes.
type stream struct {
	main    *Store
	process string // its id
	aead    cipher.AEAD

	// Of the goroutine that follows.
	last    string // id of the entry read last; "": none
	replays uint64 // number of replays when it was last rewound
	have    map[revocation.Revocation]struct{}
	pending []revocation.Revocation // in the journal, may be missing in the store
	warned  bool                    // a malformed entry was logged
}

func newStream(r *Store) (*stream, error) {
	id := make([]byte, processLen)
	rand.Read(id)
	aead, err := r.layout.Cipher(string(id))
	if err != nil {
		return nil, err
	}
	return &stream{main: r, process: string(id), aead: aead}, nil
}

// publish adds the entries of a revocation that took effect to the stream.
func (p *stream) publish(ctx context.Context, entries []revocation.Revocation) (err error) {
	if len(entries) == 0 {
		return nil
	}
	defer wrap(&err, "publish revocation to other processes")
	cmds := make([]redis.Cmder, len(entries))
	for i := range entries {
		sealed := p.seal(&entries[i])
		cmds[i] = redis.NewStringCmd(ctx, "xadd", p.main.layout.Stream, "maxlen", "~", streamLength, "*", "p", p.process, "e", sealed)
	}
	if err := p.main.client.Do(ctx, cmds...); err != nil {
		return err
	}
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (p *stream) seal(e *revocation.Revocation) string {
	nonce := make([]byte, nonceLen, 256)
	rand.Read(nonce)
	return string(p.aead.Seal(nonce, nonce, journal.EncodeEntry(e), nil))
}

// open returns the entry of the journal in an entry of the stream. own is true
// for entries of this process.
func (p *stream) open(values map[string]any) (e revocation.Revocation, own bool, err error) {
	process, _ := values["p"].(string)
	sealed, _ := values["e"].(string)
	switch {
	case process == p.process:
		return e, true, nil
	case len(process) != processLen || len(sealed) < nonceLen || len(values) != 2:
		return e, false, journal.ErrEntry
	}
	aead, err := p.main.layout.Cipher(process)
	if err != nil {
		return e, false, err
	}
	text, err := aead.Open(nil, []byte(sealed[:nonceLen]), []byte(sealed[nonceLen:]), nil)
	if err != nil {
		return e, false, journal.ErrEntry
	}
	e, err = journal.DecodeEntry(text)
	return e, false, err
}

// follow writes the revocations of other processes to the journal until ctx ends.
func (p *stream) follow(ctx context.Context) {
	logged := ""
	pauses := newBackOff(fenceRetry)
	for ctx.Err() == nil {
		err := p.step(ctx)
		if err == nil {
			pauses.Reset()
			continue
		}
		if text := err.Error(); text != logged && ctx.Err() == nil && !errors.Is(err, errFenced) {
			logged = text
			p.main.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "reading the stream of revocations failed, retrying", slog.Any("error", err))
		}
		if wait(ctx, pauses.NextBackOff()) != nil {
			return
		}
	}
}

// step reads the stream once. The position advances only after the entries are journaled.
func (p *stream) step(ctx context.Context) error {
	g := p.main.fence
	if g.raised.Load() {
		return errFenced
	}
	if err := p.applyPending(ctx); err != nil {
		return err
	}
	if n := g.replays.Load(); p.last == "" || p.replays != n {
		if err := p.rewind(); err != nil {
			return err
		}
		p.replays = n
	}
	messages, err := p.main.readStream(ctx, p.main.layout.Stream, p.last, streamBatch, streamBlock)
	if err != nil || len(messages) == 0 {
		return err
	}
	if err := p.receive(ctx, p.newEntries(ctx, messages)); err != nil {
		return err
	}
	p.last = messages[len(messages)-1].ID
	if len(messages) < streamBatch {
		p.have = nil // later entries are new
	}
	return p.applyPending(ctx)
}

// rewind sets the position to the start of the window.
func (p *stream) rewind() error {
	j := p.main.cfg.Journal
	entries, err := j.All()
	if err != nil {
		return err
	}
	p.have = make(map[revocation.Revocation]struct{}, len(entries))
	for _, e := range entries {
		p.have[journal.Key(e)] = struct{}{}
	}
	p.last = strconv.FormatInt(max(j.Oldest(), 0), 10) + "-0"
	return nil
}

// newEntries returns the entries of other processes that are not in the
// journal. The first malformed entry is logged.
func (p *stream) newEntries(ctx context.Context, messages []redis.XMessage) []revocation.Revocation {
	var out []revocation.Revocation
	for _, m := range messages {
		e, own, err := p.open(m.Values)
		if err != nil && !p.warned {
			p.warned = true
			p.main.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "malformed entry in the stream of revocations, skipped",
				slog.String("entry", m.ID), slog.Any("error", err))
		}
		if _, known := p.have[journal.Key(e)]; err == nil && !own && !known {
			out = append(out, e)
		}
	}
	return out
}

// receive writes entries to the journal.
func (p *stream) receive(ctx context.Context, entries []revocation.Revocation) error {
	if len(entries) == 0 {
		return nil
	}
	if err := p.main.cfg.Journal.Add(ctx, entries...); err != nil {
		return err
	}
	// Later failovers replay them.
	failover := p.main.fence.lastFailover.Load()
	for _, e := range entries {
		if failover != 0 && e.At <= failover+store.ClockSlack.Milliseconds() {
			p.pending = append(p.pending, e)
		}
	}
	return nil
}

// applyPending applies entries that a failover may have lost.
func (p *stream) applyPending(ctx context.Context) error {
	if len(p.pending) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	defer cancel()
	done, err := p.main.fence.replayAll(ctx, p.pending)
	p.main.fence.replayed.Add(uint64(done.Records))
	if err == nil {
		p.pending = nil
	}
	return err
}
