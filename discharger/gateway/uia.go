package gateway

import (
	"container/list"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/discharger/discharger/discharger/client"
)

// User-interactive authentication (specification, section 4.8) is one mechanism for
// every endpoint that uses it. The homeserver answers a request with 401, flows and
// the name of a session; the client repeats the request with a member auth that has
// this name. The repetition may have nothing but auth: then Synapse takes its other
// members from the request before, and Dendrite takes none. So the gateway remembers,
// by the name of the session, the members that it needs itself, and after the last
// request it does not rely on them alone: see [Gateway.endDevices].
//
// The memory is of this process and bounded in bytes and time. Without it, after a
// restart or at another gateway, a registration has mode held: the client gets a
// token that works, without a refresh token.

// params are the members of a request that the gateway needs.
type params struct {
	refresh choice   // of registration: refresh_token
	device  string   // of registration: device_id
	devices []string // of delete_devices; nil: absent
	logout  choice   // of a change of password: logout_devices
}

// choice is a boolean member that may be missing.
type choice uint8

const (
	absent choice = iota
	no
	yes
)

// size returns about how many bytes the memory needs for it.
func (a *params) size() int {
	n := 256 + len(a.device)
	for _, d := range a.devices {
		n += 16 + len(d)
	}
	return n
}

// uia is the part of an exchange that belongs to a session of user-interactive
// authentication.
type uia struct {
	session string  // the homeserver's name for it; empty: the request begins one
	own     params  // of this request
	before  *params // of the requests before it; nil: not remembered
}

// usesUIA reports whether an endpoint has user-interactive authentication and
// members that the gateway needs.
func usesUIA(r route) bool {
	return r == routeRegister || r == routeAdminRegister || r == routePassword || r == routeDeleteDevices
}

const (
	uiaLife   = 48 * time.Hour // Synapse keeps its sessions as long
	uiaMemory = 2 << 20        // bytes, of users and of registrations each

	memberAuth          = "auth"
	memberSession       = "session"
	memberFlows         = "flows"
	memberDevices       = "devices"
	memberLogoutDevices = "logout_devices"
)

// resumeUIA reads the member auth of a request, and finds the parameters of the
// requests before it in the same session.
func (g *Gateway) resumeUIA(x *exchange, body object) {
	auth, err := g.parseBody(body.get(memberAuth))
	if err != nil {
		return
	}
	if x.uia.session, _ = auth.text(memberSession); x.uia.session != "" {
		x.uia.before = g.uiaSessions(x).get(uiaKeyOf(x, x.uia.session), g.cfg.Clock())
	}
}

// challenged reads a 401 of the homeserver's on a route with user-interactive
// authentication. If it names a session, the request's parameters are kept under
// that name.
func (g *Gateway) challenged(resp *http.Response, x *exchange) error {
	body, err := readAnswer(resp)
	if err != nil {
		return err
	}
	name, _ := body.text(memberSession)
	if name == "" || body.get(memberFlows) == nil {
		return nil
	}
	g.uiaSessions(x).put(uiaKeyOf(x, name), x.uia.own.over(x.uia.before), g.cfg.Clock())
	return nil
}

// uiaSessions returns the memory for an exchange. Registrations, which need no
// token, have one of their own.
func (g *Gateway) uiaSessions(x *exchange) *uiaSessions {
	if x.route.HandsOut() {
		return g.uiaRegistrations
	}
	return g.uiaUsers
}

// over returns the parameters of a request, completed by those of the requests before
// it.
func (a params) over(before *params) params {
	if before == nil {
		return a
	}
	if a.refresh == absent {
		a.refresh = before.refresh
	}
	if a.device == "" {
		a.device = before.device
	}
	if a.devices == nil {
		a.devices = before.devices
	}
	if a.logout == absent {
		a.logout = before.logout
	}
	return a
}

// maxDeletes bounds the devices that one request deletes: each has a lease, and an
// order to the service.
const maxDeletes = 500

// prepareDevices reads a request that deletes devices, of one kind or the other,
// and takes their leases.
func (g *Gateway) prepareDevices(r *http.Request, x *exchange) *failure {
	if x.route != routeDeleteDevice {
		r.Header.Del("Accept-Encoding")
		data, f := g.readRequest(r)
		if f != nil || !x.ours() {
			return f
		}
		body, err := g.parseBody(data)
		if err == nil {
			g.resumeUIA(x, body)
			x.uia.own = deviceParams(body)
		} else if json.Valid(data) {
			return badBody(data) // the homeserver might read a member that is not read here
		}
	}
	if !x.ours() {
		return nil
	}
	devices := x.deletes()
	if len(devices) > maxDeletes {
		return badRequest(codeTooLarge, "Too many devices in one request.")
	}
	for _, device := range devices {
		if err := g.lease(r.Context(), x, x.identity.User, device); err != nil {
			return g.refusal(r.Context(), &client.UnavailableError{Err: err})
		}
	}
	return nil
}

// deviceParams reads a request that changes the password or deletes devices.
func deviceParams(body object) (a params) {
	a.logout = choiceOf(body.get(memberLogoutDevices))
	if list := body.get(memberDevices); list != nil {
		a.devices = []string{}
		if json.Unmarshal(list, &a.devices) != nil {
			a.devices = []string{}
		}
	}
	return a
}

// choiceOf reads a boolean member.
func choiceOf(v jsontext.Value) choice {
	switch v.Kind() {
	case 't':
		return yes
	case 'f':
		return no
	}
	return absent
}

// deletes returns the devices that a request deletes, sorted, as far as it or those
// before it name them.
func (x *exchange) deletes() []string {
	var devices []string
	switch x.route {
	case routeDeleteDevice:
		devices = []string{x.match.ID("device")}
	case routeDeleteDevices:
		devices = slices.Clone(x.uia.own.over(x.uia.before).devices)
	}
	devices = slices.DeleteFunc(devices, func(d string) bool { return d == "" })
	slices.Sort(devices)
	return slices.Compact(devices)
}

// partial reports whether a request has no member that decides which devices it is
// about, or another value than those before it in its session. Homeservers differ in
// what they do then.
func (x *exchange) partial() bool {
	own, before := x.uia.own, x.uia.before
	switch x.route {
	case routePassword:
		return x.uia.session != "" && own.logout == absent || before != nil && before.logout != absent && before.logout != own.logout
	case routeDeleteDevices: // of an empty list Synapse deletes none, and Dendrite all
		return len(own.devices) == 0 || before != nil && before.devices != nil && !slices.Equal(before.devices, own.devices)
	}
	return false
}

// uiaKey names a session of user-interactive authentication together with what
// Synapse binds it to: the operation, and whose it is.
type uiaKey [sha256.Size]byte

func uiaKeyOf(x *exchange, session string) uiaKey {
	key := []byte{byte(x.route)}
	for _, part := range []string{x.identity.User, session} {
		key = append(binary.AppendUvarint(key, uint64(len(part))), part...)
	}
	return sha256.Sum256(key)
}

// uiaSessions holds the parameters of sessions, the most recent ones up to a number of
// bytes. The zero value has no room. It may be used
// concurrently.
type uiaSessions struct {
	mu    sync.Mutex
	room  int // bytes
	used  int
	byKey map[uiaKey]*list.Element
	order list.List // of *uiaEntry, the oldest first
}

type uiaEntry struct {
	key    uiaKey
	params params
	until  time.Time
}

func newUIASessions(room int) *uiaSessions {
	return &uiaSessions{room: room, byKey: make(map[uiaKey]*list.Element)}
}

// get returns the parameters of a session; nil: they are not remembered.
func (s *uiaSessions) get(key uiaKey, now time.Time) *params {
	s.mu.Lock()
	defer s.mu.Unlock()
	if el := s.byKey[key]; el != nil {
		if e := entryIn(el); now.Before(e.until) {
			return &e.params
		}
	}
	return nil
}

// put keeps the parameters of a session, unless they take more than a part of the room.
func (s *uiaSessions) put(key uiaKey, a params, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remove(s.byKey[key])
	if a.size() > s.room/64 {
		return
	}
	s.byKey[key] = s.order.PushBack(&uiaEntry{key: key, params: a, until: now.Add(uiaLife)})
	s.used += a.size()
	for el := s.order.Front(); el != nil && (s.used > s.room || !now.Before(entryIn(el).until)); el = s.order.Front() {
		s.remove(el)
	}
}

func (s *uiaSessions) remove(el *list.Element) {
	if el == nil {
		return
	}
	e := entryIn(el)
	s.order.Remove(el)
	delete(s.byKey, e.key)
	s.used -= e.params.size()
}

func entryIn(el *list.Element) *uiaEntry {
	e, _ := el.Value.(*uiaEntry)
	return e
}
