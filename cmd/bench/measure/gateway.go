package measure

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/discharger/discharger/cmd/bench/reference"
)

// homeserverAnswer is as long as many answers of a homeserver are.
var homeserverAnswer = []byte(`{"chunk":[` + strings.Repeat(`{"type":"m.room.message","content":{"body":"hello"}},`, 18) + `{}]}`)

// prepareGateway measures a service that is a gateway too, with the smallest of
// homeservers behind it, and perhaps a reverse proxy before the same one.
func (r *run) prepareGateway(ctx context.Context) error {
	if r.cfg.URL != "" {
		return errors.New("the gateway can only be measured in a service that is started here")
	}
	r.progress("starting the gateway")
	upstream, err := startReference(ctx, r.cfg.Self, 0, reference.Spec{Kind: reference.Homeserver, Body: homeserverAnswer})
	if err != nil {
		return err
	}
	r.behind = upstream
	url := "http://" + upstream.hello.Addr
	own, err := startService(ctx, serviceConfig{program: r.cfg.Program, store: r.cfg.Store, procs: r.cfg.Procs, upstream: url})
	if err != nil {
		return err
	}
	s := &subject{name: "discharger gateway " + string(r.cfg.Store), target: own}
	r.subjects = append(r.subjects, s)
	request, err := loggedIn(ctx, own.gateway)
	if err != nil {
		return err
	}
	if s.client, err = newClient(own.gateway, r.cfg.Load.Connections, request); err != nil {
		return err
	}
	for _, kind := range r.cfg.Compare {
		if kind != reference.ReverseProxy {
			return fmt.Errorf("the gateway is compared with %s, not with %s", reference.ReverseProxy, kind)
		}
		ref, err := startReference(ctx, r.cfg.Self, r.cfg.Procs, reference.Spec{Kind: kind, Upstream: url})
		if err != nil {
			return err
		}
		s := &subject{name: string(kind), target: ref}
		r.subjects = append(r.subjects, s)
		if s.client, err = newClient(ref.hello.Addr, r.cfg.Load.Connections, request); err != nil {
			return err
		}
	}
	return nil
}

// loggedIn logs as many users in as there are connections, and makes for each
// what its client asks for over and over.
func loggedIn(ctx context.Context, addr string) (func(i int) (player, error), error) {
	var requests [][]byte
	c, err := dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer c.close()
	const body = `{"type":"m.login.password","identifier":{"type":"m.id.user","user":"u"},"password":"secret"}`
	for range 16 {
		status, answer, err := c.do(fmt.Appendf(nil, "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: bench\r\nUser-Agent: %s\r\n"+
			"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", userAgent, len(body), body))
		if err != nil {
			return nil, fmt.Errorf("log in: %w", err)
		}
		if err := expect(http.StatusOK, status, answer); err != nil {
			return nil, fmt.Errorf("log in: %w", err)
		}
		var login struct {
			Token string `json:"access_token"`
		}
		if err := json.Unmarshal(answer, &login); err != nil || login.Token == "" {
			return nil, fmt.Errorf("log in: no access token in %.200s", answer)
		}
		requests = append(requests, fmt.Appendf(nil, "GET /_matrix/client/v3/rooms/!room:example.org/messages?dir=b HTTP/1.1\r\n"+
			"Host: bench\r\nUser-Agent: %s\r\nAuthorization: Bearer %s\r\n\r\n", userAgent, login.Token))
	}
	return func(i int) (player, error) {
		return &again{requests: [][]byte{requests[i%len(requests)]}}, nil
	}, nil
}
