// Package store keeps the records of the service: in one bbolt file (bolt.Store),
// or in Redis (redis.Store) when several processes share them.
//
// # What a store does
//
// It compares and swaps opaque bytes, all of a user's changes or none, and
// forgets what has expired. It never looks into a record and never decides
// what becomes of a session. Every write may be sent again: a store that finds
// the result already there reports success and changes nothing, so a
// connection that breaks at the wrong moment costs a retry and nothing else.
// [Store] says what callers can rely on; one suite of tests holds
// both stores to it.
//
// # What is durable
//
// Bolt syncs the file before it acknowledges any write. Writes that come at the
// same time share a commit. A revocation is synced to the journal.Journal before that.
//
// Redis is as durable as it is configured to be: with appendonly and
// appendfsync everysec a crash takes back the last second. For revocations
// [redis.Config.Durability] can ask for more, with WAIT or WAITAOF on the
// connection that made the write. If that is not reached, the caller gets an
// error: the revocation has probably taken effect, and may be undone by a
// failover. No setting excludes that a replica which lags behind is promoted.
//
// # What a failover takes back
//
// A refresh that is lost does no harm, its client is believed: see
// [session.Step]. A revocation that is lost is a session that lives again.
// So a process with a journal.Journal writes what it revokes to a file of its own
// first, and uses a primary that it does not know only after it has replayed
// what the file has. Until then every method answers with an error, which
// nobody takes for a refusal, and Ready says why. Primaries are known by their
// run id and replication id, which are looked at on every new connection before
// anything else, and every second.
//
// Processes with a journal tell each other what they have revoked, by a stream
// in Redis, before it is acknowledged; each writes what it hears to its own
// journal, and replays that too.
//
// What is left: a revocation reaches the others a moment after it was
// acknowledged. If the primary dies within that moment, only the process that
// was told of it by the feed or by a client has it, and another one lets the
// session in until that has replayed it, a second or so. The stream keeps the
// last 100 000 entries: who comes later than that misses the rest. In a cluster
// it is on the node of the first bucket, without which nothing can be revoked
// by a process with a journal. A primary that is cut off from the others and
// from Sentinel answers those who still reach it, until it is told;
// min-replicas-to-write bounds what it takes. A journal whose disk is lost is
// lost.
//
// # What an older copy takes back
//
// A bbolt file that is copied and put back later shows sessions as they were. So
// a Bolt with a journal.Journal writes what it revokes to that file first. Its commits
// are numbered, and the journal has checkpoints: numbers of commits from which it
// is complete. A file that is older than the last commit that the journal knows
// is given what it lacks when it is opened, with the events. A file that is older
// than the oldest checkpoint, or that has another identity than the journal,
// answers [ErrLost]; so does a file whose journal is damaged. The
// journal removes entries after its window, a day by default: an older copy than
// that is a loss.
//
// The last commit is written to the journal with every revocation, once a minute,
// and when the file is closed, and not with every refresh. So a copy that lacks
// nothing but refreshes of the last minute before a crash is not noticed. Its
// clients present tokens that are newer than their records, and are believed. If
// the file and its journal are put back together, nothing is noticed, and
// sessions that ended since live again: restore a backup instead.
//
// Each entry of a journal has a number and a checksum, in both stores. A number
// that is missing and a checksum that is wrong are a journal.DamageError, which Ready
// reports. Nothing is written to a damaged journal; AcceptLoss puts it aside and
// begins another one with the entries that can be read.
//
// # Backups
//
// bolt.Store.Backup writes the records as they are at one instant, in a format of its
// own, and bolt.Restore and redis.Restore make a store of them. They restore
// nothing from a file that is cut short or altered. What the journal has since the
// backup is revoked again. Without a journal that is complete since then, all
// sessions from before the backup are refused as lost, softly. So are, in any
// case, those that have no record and were minted before the restore.
//
// # What is refused
//
// OpenRedis refuses a server that evicts keys under memory pressure, is older
// than 6.2, is a replica, is a node of a cluster when a single server was
// configured, or cannot give the configured durability at that moment. If the
// Redis user may not look, that is logged and the store goes on.
//
// Servers change while a store is open: a replica with other settings is
// promoted, or an operator changes them. So role and maxmemory-policy are looked
// at on every new connection, before anything else is sent on it, and those of
// all primaries every two seconds. While a primary evicts keys, every method
// returns an error, which is no decision, and Ready returns the reason; it is
// logged once. While the configured durability cannot be had, Ready returns that
// and revocations are not acknowledged. redis.Store.Stats counts evicted keys, and a
// growing number is logged as an error.
//
// Ready also tries a write on each primary, at most once a second: a server
// whose memory or disk is full, that became a replica, or that lacks the
// replicas it must have, is not ready.
//
// The store needs the commands
//
//	eval evalsha get set del time
//	hget hgetall hmget hset hsetnx hdel hexists hlen hrandfield
//	pttl expireat persist
//	exists xadd xdel xlen xrange xread xinfo|stream
//
// on keys that begin with "ds{", wait or waitaof for durability, select for a
// numbered database, cluster|slots and command for a cluster, and role and info
// to be able to check, which a journal cannot do without.
//
// # What is noticed
//
// An empty store looks like a store in which nobody has ever logged in, and
// every session would be refused for good. So a store has a random identity,
// and a marker.Marker remembers it outside. A store that should have data and does
// not, or has another store's, answers [ErrLost] until
// AcceptLoss is called. Redis is watched while it runs: before a session is
// said not to exist, the identity is read from the same node, and scripts
// compare it before they write.
//
// Older data under the same identity is noticed by heartbeats: while processes
// run, each primary gets one a minute, and keeps those of a day. A process with a
// journal remembers there which ones it has seen. Before it uses a primary that
// it does not know, it looks for them. Where the newest is missing, the data goes
// back to the last one before it. If the journal's window covers the time since,
// the replay makes up for it; otherwise the store is lost until AcceptLoss is
// called. That notices a snapshot or an append-only file put back, and a replica
// that was cut off for long. It does not notice data that is a minute or two old,
// which a replay makes up for in any case; data that is put back while no process
// has a journal, or only new journals; nor what happened to a server whose run id
// and replication id are as before.
//
// # Losses
//
// A new store records when it was made, by the servers' clock, and AcceptLoss
// records when: for the users whose data was lost, and for the homeservers whose
// revocations may be missing, see [Losses]. Load returns these times,
// so that sessions from before are refused as lost, and softly, where the store
// cannot show that nobody revoked them. An accepted loss is seen by every process
// within a second, and AcceptLoss waits for that. In a cluster, only users and
// homeservers on the lost node are concerned. OpenRedis logs a warning while
// sessions from before can be alive: RedisConfig.SessionLife. A store that an
// earlier version made has no such record, and has lost nothing.
//
// # Versions side by side
//
// A process of the version before (commit f75465c) may use the same data during
// an upgrade. It can neither list sessions of users who have a record of a
// device nor read a tombstone of this version, and decides nothing about them:
// requests for which it needs that are answered 503 there. Of what newer
// processes revoke, its journal takes nothing. It compares the beginning of a
// User-Agent with the client's name in a record of this version, and so takes the
// client for another party; this version reads records of both.
//
// # Feeds
//
// A store also keeps what was revoked, for each homeserver in order, so that
// the homeserver can follow: [Feed]. An event stays until its time is
// over, unless there are more than MaxEvents. A position names one event in one
// store. Where events are missing after it, the reader is told and begins at the
// beginning. Events may come twice.
//
// A failover can take back the event that a position names. What was there
// before it is there still, and was read. A Redis with a journal publishes again
// what was lost, so it lets the reader go on a minute before the position; that
// is how far the clocks of two primaries may differ. Without a journal the reader
// is told of a gap.
//
// In a bbolt file, events are part of the transaction that made them. In Redis
// they follow the write, since they can be on another node; a process that
// dies in between has not acknowledged the write.
//
// A failover can take back an event, with the revocation that it is about or
// without it, and leave no gap for a reader who had not come to it yet. So a
// replay publishes what it restores, before it restores it: whoever dies in
// between does both again. It also looks for events that are missing though
// their revocation is not. A replay that finds everything publishes nothing.
// While a feed has lost events because there were too many, it is not known
// which are missing, and only what is restored is published.
//
// # What an attacker could do
//
// Who can write to the store can bring revoked sessions back and end others,
// but cannot mint a discharge: no keys are kept here. Who can read it sees the
// records. In Redis, names of homeservers and users appear only as keyed
// hashes, and in what processes tell each other, sealed with a key that is made
// from the tag key; in a bbolt file and in a journal they are in the clear.
package store
