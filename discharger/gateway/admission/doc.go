// Package admission bounds the requests that the gateway answers at a time.
//
//   - [Limiter] gives each request a place, brief or lasting, in all and per client
//     address.
//   - [WaitingRoom] bounds the requests that wait for the service. A waiting request
//     holds no place.
//   - [Leases] let one request at a time touch a device: a login that names it, or a
//     logout.
//   - [Polls] are the long polls in progress, which a shutdown answers.
//   - [Recorder] ends exchanges whose client neither sends nor reads.
//
// The package decides by count, address and time only: it reads no token and no body.
// Nothing in it is persistent.
package admission
