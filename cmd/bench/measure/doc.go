// Package measure measures what the service costs, and where it breaks.
//
// # How it measures
//
// What is measured runs in a process of its own, so that its processor time can
// be read alone: the service, started from the same program, its Redis, and the
// references that it is compared with. Load comes from this process, over HTTP
// connections that stay open. It is written so as to cost little, but how much
// it costs does not matter: nothing of it is counted but the waiting.
//
//	closed loop   each connection sends when it has its answer: how much can it do
//	open loop     requests are due at random times, at a rate: how long do they take
//
// In an open loop time counts from when a request was due, not from when there
// was a connection free to send it. A stall so counts for everyone who waited.
//
// A comparison alternates: some seconds of one, some of the other, and again.
// A machine that is busy with other things is then busy for both. The ratio is
// the median over rounds, printed with the smallest and the largest.
//
// Of what depends on other work on the machine least, processor time, most is
// made; it is "cpu" in tables. Latency depends on it most, so tables say how
// busy the machine was.
//
// # What it does not do
//
// It measures no network: everything is on one machine. Nothing here is meant
// to be used while the service has users, though it does no harm: the sessions
// it makes are of users that no one else has.
package measure
