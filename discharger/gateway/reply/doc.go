// Package reply holds the answers that the gateway gives itself, in the form of the
// Matrix client-server API, and the outcome of a request for metrics and logs.
//
// A 401 M_UNKNOWN_TOKEN always carries soft_logout: with false, clients delete their
// encryption keys. A request that is not decided is 503 and never states anything
// about a session.
package reply
