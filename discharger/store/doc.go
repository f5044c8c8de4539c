// Package store keeps the records of the service: in one bbolt file ([Bolt]),
// or in Redis ([Redis]) when several processes share them.
//
// # What a store does
//
// It compares and swaps opaque bytes, all of a user's changes or none, and
// forgets what has expired. It never looks into a record and never decides
// what becomes of a session. Every write may be sent again: a store that finds
// the result already there reports success and changes nothing, so a
// connection that breaks at the wrong moment costs a retry and nothing else.
// [discharger.Store] says what callers can rely on; one suite of tests holds
// both stores to it.
//
// # What is durable
//
// Bolt syncs the file before it acknowledges any write. Writes that come at the
// same time share a commit.
//
// Redis is as durable as it is configured to be: with appendonly and
// appendfsync everysec a crash takes back the last second. For revocations
// [RedisConfig.Durability] can ask for more, with WAIT or WAITAOF on the
// connection that made the write. If that is not reached, the caller gets an
// error: the revocation has probably taken effect, and may be undone by a
// failover. No setting excludes that a replica which lags behind is promoted.
//
// # What a failover takes back
//
// A refresh that is lost does no harm, its client is believed: see
// [discharger.Step]. A revocation that is lost is a session that lives again.
// So a process with a [Journal] writes what it revokes to a file of its own
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
// # What is refused
//
// OpenRedis refuses a server that evicts keys under memory pressure, is older
// than 6.2, is a replica, is a node of a cluster when a single server was
// configured, or cannot give the configured durability at that moment. If the
// Redis user may not look, that is logged and the store goes on. It needs the
// commands
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
// and a [Marker] remembers it outside. A store that should have data and does
// not, or has another store's, answers [discharger.ErrStoreLost] until
// AcceptLoss is called. Redis is watched while it runs: before a session is
// said not to exist, the identity is read from the same node, and scripts
// compare it before they write.
//
// # Feeds
//
// A store also keeps what was revoked, for each homeserver in order, so that
// the homeserver can follow: [discharger.Feed]. An event stays until its time is
// over, unless there are more than MaxEvents. A position names one event in one
// store. Where events are missing after it, whatever the cause, the reader is
// told and begins at the beginning. Events may come twice.
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
