// Package store is the contract of the stores of the service: [Store], which keeps
// its records, and [Feed], which returns published revocations in order. Package
// bolt implements it in one bbolt file, package redis for several processes.
//
// # Operations
//
// It compares and swaps opaque bytes, all changes of a user or none, and forgets expired
// records. It decides nothing about a session. Every write can be sent again: a store
// that finds the result already there reports success and changes nothing, so a broken
// connection costs a retry. Package storetest has the conformance suite of all stores.
//
// # Durability
//
// A bbolt store syncs its file before it acknowledges a write. Concurrent writes
// share a commit. A revocation is synced to the journal before.
//
// Redis is as durable as configured: with appendonly and appendfsync everysec a
// crash loses the last second. For revocations a durability can ask for more, with
// WAIT or WAITAOF on the connection of the write. If that is not reached, the caller
// gets an error: the revocation has probably taken effect, and a failover may undo
// it. No setting excludes the promotion of a replica that lags behind.
//
// # Failover
//
// A lost refresh does no harm: the client's token is accepted, see package session. A
// lost revocation revives a session. So a process with a journal writes its revocations
// to a file of its own first, and uses an unknown primary only after a replay of the
// journal. Until then every method returns an error, which is no refusal, and Ready
// reports the reason. Primaries are known by their run id and replication id, which are
// checked on every new connection, before its first command, and every second.
//
// Processes with a journal exchange revocations through a stream in Redis, before
// they are acknowledged. Each writes those of the others to its own journal, and
// replays them too.
//
// Limits: a revocation reaches the other processes a moment after it was
// acknowledged. If the primary fails within that moment, only the process that made
// it can replay it, and another one may accept the session for a second. The stream
// keeps the last 100 000 entries; a process that lags by more misses the older ones.
// In a cluster the stream is on the node of the first hash tag, without which no
// process with a journal can revoke. A primary that is cut off from its replicas and
// from Sentinel serves clients that still reach it; min-replicas-to-write bounds the
// writes it accepts. Losing the journal's disk loses the journal.
//
// # Older copies
//
// A copy of a bbolt file that is put back shows sessions as they were. So a bbolt
// store with a journal writes its revocations there first. Its commits are numbered,
// and the journal has checkpoints: commits from which on it is complete. When an
// older file is opened, the revocations since are replayed, with their events. A
// file from before the oldest checkpoint, of another identity than the journal, or
// with a damaged journal is lost until AcceptLoss is called.
//
// The last commit is written to the journal with every revocation, once a minute, and
// when the file is closed. So a copy that lacks only refreshes of the last minute before
// a crash is not detected. Its clients present tokens that are newer than their records,
// which are accepted. If the file and its journal are put back together, nothing is
// detected, and sessions that ended since live again: restore a backup instead.
//
// # Backups
//
// A backup has the records of a bbolt store at one instant, in a format of its own, and
// is restored into a bbolt file or an empty Redis. A truncated or altered backup is
// refused. Revocations since the backup are made again from the journal. Without a
// journal that is complete since then, all sessions from before the backup are refused as
// lost, softly. So are sessions without a record that were minted before the restore.
//
// # Detection of loss
//
// An empty store looks like one without logins, and every session would be refused
// for good. So a store has a random identity, which a marker keeps elsewhere. A store
// whose data is gone, or has another identity, returns [ErrLost] until AcceptLoss is
// called. Redis is checked while it is in use.
//
// Older data under the same identity is detected by heartbeats: each primary gets one a
// minute, and keeps those of a day. A process with a journal keeps the newest ones it has
// seen. Before it uses an unknown primary, it looks for them. Where the newest is
// missing, the data is as old as the last one before it. If the window of the journal
// covers the time since, a replay repairs it; otherwise the store is lost. That detects a
// snapshot or an append-only file that was put back, and a replica that was cut off for
// long. It does not detect data that is a minute or two old, which a replay repairs in
// any case; data that is put back while no process has a journal, or only new ones; or a
// change under an unchanged run id and replication id.
//
// # Losses
//
// A new store records its birth, by the clock of the servers, and AcceptLoss records
// its time: for users whose data was lost, and for homeservers whose revocations may
// be missing, see [Losses]. Load returns these times, and sessions from before them
// are refused as lost, softly, unless the store shows that they were not revoked.
// Every process sees an accepted loss within a second, and AcceptLoss waits for
// that. In a cluster, only users and homeservers of the lost node are concerned. A
// store of an earlier version records no birth, and has lost nothing.
//
// # Confidentiality
//
// A reader of a store cannot mint a discharge: it holds no keys. A reader sees the
// records. In Redis, names of homeservers and users appear only as keyed hashes, and
// sealed in the stream; in a bbolt file and in a journal they are plain.
package store
