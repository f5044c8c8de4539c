// Package outbox holds how sessions ended, and persists the calls about it that are
// still to be made to the service and the homeserver.
//
// # States
//
// A session that began through the gateway has a device at the homeserver. It ends in
// one of three ways:
//
//	live ──homeserver ended the token──▶ revocation job ──sent──▶ done
//	     ──service: hard end──────────▶ pending logout ──sent──▶ done
//	     ──service: soft end──────────▶ ended softly ──ForgetAfter──▶ pending logout
//
// A revocation job ends sessions at the service: the homeserver has ended their
// tokens already. It is sent at once, and kept if the service does not decide. A job
// that is sent late carries its age, so that it spares sessions that began since.
//
// A pending logout ends a session's token, and the device with it, at the homeserver,
// so that the device does not go on receiving keys. It is sent only if no other
// session has the device, which is checked at the service at every try, under the
// device's lease. A login on the device cancels it. After a soft end the device stays
// until [Config].Periods lets it be forgotten: its user may log in again and keep the
// keys.
//
// Failed calls are retried with growing intervals, and after a restart.
//
// # File
//
// The file is a bbolt database:
//
//	sessions   session id                  Session
//	by_user    user, 00, session id        device
//	condemned  session id                  PendingLogout
//	orders     sequence number             Job
//	users      user                        when their first session began, Unix ms
//	tried      "at"                        time of the last probe, Unix ms
//
// Nothing in it is needed to verify a token. If it is lost, sessions go on, and
// devices whose sessions end elsewhere stay at the homeserver until their token is
// presented. Tokens in it are sealed.
package outbox
