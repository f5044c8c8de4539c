// Package service makes the calls to the service on which requests of clients
// depend: discharges of sessions in mode held, refreshes, reports of epochs, and
// whether the service is ready.
//
// A call is decided if the service answers, with a grant or a refusal. A call that is
// not decided is repeated, with growing intervals, as long as requests wait for its
// result: many clients repeat a refused request at once, and some end their session at
// the first unexpected answer. All requests that need one result share one call, see
// [Do]. Waiting is bounded per request and by an [admission.WaitingRoom]; a request
// stops waiting when its session ends, its client leaves, or the gateway drains.
//
// [Link] observes calls and the feed, and ends every pause when the service decides
// again. Caches save calls and change no answer.
package service
