// Package client is the Go client of the discharger. Package wire has the
// contract that it keeps.
//
// [Client.Discharge] gets one discharge, patiently. [Client.NewSession] makes a
// [Session], which keeps an access macaroon discharged: it refreshes ahead of
// time, once for everybody who asks, and a reply that is lost on the way does
// no harm. Programs built on the Go bakery find package bakery.
//
// The client sends what it holds only to the address that it was configured
// with, never to the one that a macaroon names: the location in a caveat is not
// signed. It follows no redirect, puts nothing secret into a URL and logs
// nothing.
package client
