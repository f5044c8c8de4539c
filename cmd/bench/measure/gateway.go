package measure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/discharger/discharger/cmd/bench/load"
	"github.com/discharger/discharger/cmd/bench/reference"
	"github.com/discharger/discharger/cmd/bench/server"
	"github.com/discharger/discharger/cmd/bench/workload"
)

// homeserverAnswer has the length of a usual answer of a homeserver.
var homeserverAnswer = []byte(`{"chunk":[` + strings.Repeat(`{"type":"m.room.message","content":{"body":"hello"}},`, 18) + `{}]}`)

// prepareGateway starts a service with a gateway, the smallest of homeservers behind
// it, and the reference, a reverse proxy before the same homeserver.
func (r *run) prepareGateway(ctx context.Context) error {
	if r.cfg.URL != "" {
		return errors.New("the workload gateway needs a service that bench starts")
	}
	r.progress("starting the gateway")
	upstream, err := server.StartReference(ctx, r.cfg.Self, 0, reference.Spec{Kind: reference.Homeserver, Body: homeserverAnswer})
	if err != nil {
		return err
	}
	r.behind = upstream
	url := "http://" + upstream.Hello.Addr
	own, err := server.Start(ctx, server.Config{Program: r.cfg.Program, Store: r.cfg.Store, Procs: r.cfg.Procs, Upstream: url})
	if err != nil {
		return err
	}
	s := &subject{name: "discharger gateway " + string(r.cfg.Store), target: own}
	r.subjects = append(r.subjects, s)
	request, err := loggedIn(ctx, own.Gateway)
	if err != nil {
		return err
	}
	if s.client, err = load.NewClient(own.Gateway, r.cfg.Load.Connections, request); err != nil {
		return err
	}
	for _, kind := range r.cfg.Compare {
		if kind != reference.ReverseProxy {
			return fmt.Errorf("the gateway is compared with %s, not with %s", reference.ReverseProxy, kind)
		}
		ref, err := server.StartReference(ctx, r.cfg.Self, r.cfg.Procs, reference.Spec{Kind: kind, Upstream: url})
		if err != nil {
			return err
		}
		s := &subject{name: string(kind), target: ref}
		r.subjects = append(r.subjects, s)
		if s.client, err = load.NewClient(ref.Hello.Addr, r.cfg.Load.Connections, request); err != nil {
			return err
		}
	}
	return nil
}

// loggedIn logs in some users through the gateway, and returns a function that makes
// players with their requests.
func loggedIn(ctx context.Context, addr string) (func(i int) (load.Player, error), error) {
	var requests [][]byte
	c, err := load.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	const body = `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"u"},"password":"secret"}`
	for range 16 {
		status, answer, err := c.Do(fmt.Appendf(nil, "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: bench\r\nUser-Agent: %s\r\n"+
			"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", workload.UserAgent, len(body), body))
		if err != nil {
			return nil, fmt.Errorf("log in: %w", err)
		}
		if err := workload.Expect(http.StatusOK, status, answer); err != nil {
			return nil, fmt.Errorf("log in: %w", err)
		}
		var login struct {
			Token string `json:"access_token"`
		}
		if err := json.Unmarshal(answer, &login); err != nil || login.Token == "" {
			return nil, fmt.Errorf("log in: no access token in %.200s", answer)
		}
		requests = append(requests, fmt.Appendf(nil, "GET /_matrix/client/v3/rooms/!room:example.org/messages?dir=b HTTP/1.1\r\n"+
			"Host: bench\r\nUser-Agent: %s\r\nAuthorization: Bearer %s\r\n\r\n", workload.UserAgent, login.Token))
	}
	return func(i int) (load.Player, error) {
		return &workload.Repeat{Requests: [][]byte{requests[i%len(requests)]}}, nil
	}, nil
}
