// Package uia remembers parameters of user-interactive authentication (Matrix
// client-server API, section 4.8) between the requests of one session.
//
// The homeserver answers a request with 401, flows and the name of a session; the
// client repeats the request with a member auth that has this name, and the other
// members may be missing then. [Sessions] keeps those that the gateway needs, in
// memory bounded in bytes and in time.
package uia
