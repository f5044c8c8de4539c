// Package measure measures the cost of the discharger beside that of references.
//
// # Method
//
// Each measured program runs in a process of its own, so that its processor time
// is known: the service, its Redis, and the references. This process sends the
// load over persistent HTTP connections; its own cost is not counted.
//
//	closed loop   each connection sends when it has its answer: throughput
//	open loop     requests are due at random times, at a rate: latency
//
// In an open loop, latency counts from the time a request was due, not from the
// time a connection was free. A stall counts for every request that waited.
//
// A comparison alternates between the service and a reference, some seconds each,
// so that other work on the machine affects both. The ratio is the median over the
// rounds, printed with the smallest and the largest.
//
// Processor time ("cpu" in tables) depends least on other work on the machine, and
// latency most. Tables therefore contain the load average.
//
// # Limits
//
// Everything runs on one machine: no network is measured. A run against a service
// in use does no harm, since its sessions belong to users of the run alone, but the
// service slows down.
package measure
