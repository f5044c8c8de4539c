// Package upstream connects the gateway to the homeserver: it holds the address, the
// connections, the headers of requests that are passed on, and the requests that the
// gateway makes itself.
//
// Requests of the gateway's own carry the address and the name of the client on whose
// behalf they are made, since the homeserver shows users where and when their devices
// were last seen. They carry the homeserver's own token of a session and never one of
// the gateway's.
//
// An upstream can lead back to the gateway: by its own address, by a forwarded port,
// or through another proxy. Every request to the homeserver carries CDN-Loop (RFC
// 8586) with a random name of this process, and a request that arrives with the name
// is a loop.
package upstream
