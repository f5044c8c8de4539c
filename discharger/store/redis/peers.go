package redis

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/discharger/discharger/discharger/revocation"
	"github.com/discharger/discharger/discharger/session"
	"github.com/discharger/discharger/discharger/store/journal"
)

// A process can only replay what it knows of. So processes with a journal tell
// each other: what one revokes it adds to a stream, after the revocation took
// effect and before it is acknowledged, and what others add there it writes to
// its own journal.
//
// An entry of the stream has p, the random id of the process that wrote it,
// and e, a nonce and the sealed entry of the journal. The key follows from the
// tag key and the id: a server learns no names, and who has no tag key cannot
// have processes end sessions.
//
// A stream is followed by the ids of its entries. In another primary they may
// begin anew, so after every replay the stream is read again from where the
// journal's window begins; what the journal has is passed over. Someone may
// hear of a revocation only after a failover that lost it, in a cluster above
// all, where it and the stream are on different nodes. Therefore what is not
// clearly younger than the last failover is made up for at once.

const (
	peersMax   = 100_000     // entries of the stream, about
	peersBatch = 500         // entries read at once
	peersBlock = time.Second // how long a server is asked to wait for one
	processLen = 16
	nonceLen   = 12 // of GCM
)

// peers is what a process has to do with the others.
type peers struct {
	main    *Store
	process string // its id
	aead    cipher.AEAD

	// Of the goroutine that follows.
	last    string // id of the entry that was read last; "": from the beginning
	replays uint64 // how many there had been when the beginning was read
	have    map[revocation.Revocation]struct{}
	owed    []revocation.Revocation // in the journal, but perhaps not in the store
	warned  bool                    // of an entry that cannot be read
}

func newPeers(r *Store) (*peers, error) {
	id := make([]byte, processLen)
	rand.Read(id)
	aead, err := r.layout.peerSeal(string(id))
	if err != nil {
		return nil, err
	}
	return &peers{main: r, process: string(id), aead: aead}, nil
}

// peerSeal returns what the entries of a process are sealed with.
func (l *layout) peerSeal(process string) (cipher.AEAD, error) {
	key := l.mac('p', process, "")
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// tell adds entries of a revocation that has taken effect to the stream.
func (p *peers) tell(ctx context.Context, entries []revocation.Revocation) error {
	if len(entries) == 0 {
		return nil
	}
	cmds := make([]redis.Cmder, len(entries))
	for i := range entries {
		sealed := p.seal(&entries[i])
		cmds[i] = redis.NewStringCmd(ctx, "xadd", p.main.layout.peers, "maxlen", "~", peersMax, "*", "p", p.process, "e", sealed)
	}
	if err := p.main.client.do(ctx, cmds...); err != nil {
		return fmt.Errorf("tell other processes: %w", err)
	}
	for _, cmd := range cmds {
		if err := cmd.Err(); err != nil {
			return fmt.Errorf("tell other processes: %w", err)
		}
	}
	return nil
}

func (p *peers) seal(e *revocation.Revocation) string {
	nonce := make([]byte, nonceLen, 256)
	rand.Read(nonce)
	return string(p.aead.Seal(nonce, nonce, journal.EncodeEntry(e), nil))
}

// open returns the entry of the journal that an entry of the stream holds; own
// is true of what this process wrote itself.
func (p *peers) open(values map[string]any) (e revocation.Revocation, own bool, err error) {
	process, _ := values["p"].(string)
	sealed, _ := values["e"].(string)
	switch {
	case process == p.process:
		return e, true, nil
	case len(process) != processLen || len(sealed) < nonceLen || len(values) != 2:
		return e, false, journal.ErrEntry
	}
	aead, err := p.main.layout.peerSeal(process)
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

// follow takes what others revoke into the journal, until ctx ends.
func (p *peers) follow(ctx context.Context) {
	said := ""
	for ctx.Err() == nil {
		err := p.step(ctx)
		if err == nil {
			continue
		}
		if text := err.Error(); text != said && ctx.Err() == nil && !errors.Is(err, errShut) {
			said = text
			p.main.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "revocations of other processes cannot be followed", slog.Any("error", err))
		}
		if wait(ctx, guardRetry) != nil {
			return
		}
	}
}

// step reads once. What is read is not passed over before it is in the journal.
func (p *peers) step(ctx context.Context) error {
	g := p.main.guard
	if g.shut.Load() {
		return errShut
	}
	if err := p.pay(ctx); err != nil {
		return err
	}
	if n := g.replays.Load(); p.last == "" || p.replays != n {
		if err := p.rewind(); err != nil {
			return err
		}
		p.replays = n
	}
	messages, err := p.read(ctx)
	if err != nil || len(messages) == 0 {
		return err
	}
	if err := p.hear(ctx, p.news(ctx, messages)); err != nil {
		return err
	}
	p.last = messages[len(messages)-1].ID
	if len(messages) < peersBatch {
		p.have = nil // the rest is new
	}
	return p.pay(ctx)
}

// rewind begins at the beginning, or where entries begin to matter.
func (p *peers) rewind() error {
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

func (p *peers) read(ctx context.Context) ([]redis.XMessage, error) {
	var answer *redis.XStreamSliceCmd
	err := await(ctx, func() {
		answer = p.main.waiting.XRead(ctx, &redis.XReadArgs{Streams: []string{p.main.layout.peers, p.last}, Count: peersBatch, Block: peersBlock})
	})
	if err != nil {
		return nil, err
	}
	streams, err := answer.Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(streams) != 1 {
		return nil, fmt.Errorf("redis answered with %d streams instead of 1", len(streams))
	}
	return streams[0].Messages, nil
}

// news are the entries of others that the journal may lack. Whoever writes
// rubbish to the stream gets one line in the log.
func (p *peers) news(ctx context.Context, messages []redis.XMessage) []revocation.Revocation {
	var out []revocation.Revocation
	for _, m := range messages {
		e, own, err := p.open(m.Values)
		if err != nil && !p.warned {
			p.warned = true
			p.main.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "an entry in the stream of revocations is not of this store's processes",
				slog.String("entry", m.ID), slog.Any("error", err))
		}
		if _, known := p.have[journal.Key(e)]; err == nil && !own && !known {
			out = append(out, e)
		}
	}
	return out
}

// hear writes entries to the journal.
func (p *peers) hear(ctx context.Context, entries []revocation.Revocation) error {
	if len(entries) == 0 {
		return nil
	}
	if err := p.main.cfg.Journal.Add(ctx, entries...); err != nil {
		return err
	}
	// A failover from now on replays them.
	failover := p.main.guard.lastFailover.Load()
	for _, e := range entries {
		if failover != 0 && e.At <= failover+session.ClockSlack.Milliseconds() {
			p.owed = append(p.owed, e)
		}
	}
	return nil
}

// pay makes the store show what is owed to it.
func (p *peers) pay(ctx context.Context) error {
	if len(p.owed) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, guardTimeout)
	defer cancel()
	changed, err := p.main.guard.replayAll(ctx, p.owed)
	p.main.guard.replayed.Add(uint64(changed))
	if err == nil {
		p.owed = nil
	}
	return err
}
