package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/wire"
)

// play is the plot of the demo. Every step makes HTTP requests, and fails if an answer
// is not the expected one.
type play struct {
	out        io.Writer
	clock      *clock
	service    string
	homeserver string
	ttl        time.Duration
	step       int

	access client.Access       // Alice's
	bare   string              // the same, as text
	grant  client.Grant        // her latest
	stolen client.RefreshToken // copied by the thief
}

func (p *play) run(ctx context.Context) error {
	p.printf("One session from login to logout, and one that is stolen on the way.\n")
	p.printf("  service     %s   has its own keys and the homeserver's public key", p.service)
	p.printf("  homeserver  %s   has its own keys and the service's public key", p.homeserver)
	for _, step := range []func(context.Context) error{
		p.login, p.useBare, p.activate, p.refreshTwice, p.steal, p.loginAgain, p.logout, p.runOut,
	} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("step %d of the demo: %w", p.step, err)
		}
	}
	p.printf("\nEvery answer was the expected one. To run a service: discharger serve")
	return nil
}

func (p *play) printf(format string, args ...any) { fmt.Fprintf(p.out, format+"\n", args...) }

// begin prints the headline of a step.
func (p *play) begin(headline string) {
	p.step++
	p.printf("\n%d. %s", p.step, headline)
}

// short shows as much of a secret as it takes to tell it from another.
func short(secret string) string {
	return fmt.Sprintf("…%s (%d characters)", secret[max(0, len(secret)-6):], len(secret))
}

// client returns a client of the service.
func (p *play) client(userAgent string) (*client.Client, error) {
	return client.New(client.Config{URL: p.service, UserAgent: userAgent, Patience: -1})
}

func (p *play) mint(ctx context.Context) error {
	text, err := send(ctx, http.MethodPost, p.homeserver+"/login", "", url.Values{"user": {"@alice:example.org"}})
	if err != nil {
		return err
	}
	p.bare, p.grant = text, client.Grant{}
	p.access, err = client.ParseAccess([]byte(text))
	return err
}

func (p *play) login(ctx context.Context) error {
	p.begin("Alice logs in. The homeserver mints an access macaroon, without a request.")
	if err := p.mint(ctx); err != nil {
		return err
	}
	p.printf("   access macaroon  %s", short(p.bare))
	p.printf("   It is long-lived. Its caveat is sealed, and only the service can discharge it.")
	return nil
}

func (p *play) useBare(ctx context.Context) error {
	p.begin("The homeserver refuses it without a discharge.")
	_, err := send(ctx, http.MethodGet, p.homeserver+"/whoami", p.bare, nil)
	if !refusedAs(err, "not discharged") {
		return unexpected("homeserver should have refused the bare macaroon", err)
	}
	p.printf("   homeserver: %v", err)
	return nil
}

// unexpected returns the error of a request that should have been refused.
func unexpected(what string, err error) error {
	return fmt.Errorf("the %s, but: %w", what, cmp.Or(err, errors.New("it was accepted")))
}

// discharge fetches a discharge as Alice.
func (p *play) discharge(ctx context.Context) error {
	alice, err := p.client("Alice's phone")
	if err != nil {
		return err
	}
	p.grant, err = alice.Discharge(ctx, client.Request{Access: p.access, Token: p.grant.Token})
	return err
}

// whoami shows the homeserver the latest bundle.
func (p *play) whoami(ctx context.Context) error {
	bundle, err := p.grant.Bundle()
	if err != nil {
		return err
	}
	answer, err := send(ctx, http.MethodGet, p.homeserver+"/whoami", bundle, nil)
	if err != nil {
		return fmt.Errorf("the homeserver should have accepted the bundle, but: %w", err)
	}
	p.printf("   homeserver: accepted, %s", answer)
	return nil
}

func (p *play) activate(ctx context.Context) error {
	p.begin("Alice's client fetches the first discharge. The service records the new session.")
	if err := p.discharge(ctx); err != nil {
		return err
	}
	p.stolen = p.grant.Token
	p.printf("   discharge        good for %v", p.ttl)
	p.printf("   refresh token    %s, for the next one", short(string(p.grant.Token)))
	p.printf("   The homeserver checks both with its own keys, without a request:")
	return p.whoami(ctx)
}

func (p *play) refreshTwice(ctx context.Context) error {
	p.begin("Before it expires, the client fetches the next one, and the next. Each comes with a token.")
	for range 2 {
		p.clock.forward(p.ttl - time.Minute)
		if err := p.discharge(ctx); err != nil {
			return err
		}
		p.printf("   %v later: a new discharge, refresh token %s", p.ttl-time.Minute, short(string(p.grant.Token)))
		if err := p.whoami(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *play) steal(ctx context.Context) error {
	p.begin("A thief has copied macaroon and token from Alice's first refresh, and tries them.")
	thief, err := p.client("a thief's machine")
	if err != nil {
		return err
	}
	_, err = thief.Discharge(ctx, client.Request{Access: p.access, Token: p.stolen})
	refused := refusal(err)
	if refused.Reason != wire.ReasonTokenReused {
		return unexpected("service should have refused the stolen token", err)
	}
	p.printf("   service to the thief: %s, %q", refused.Reason, refused.Message)
	p.printf("   An old token means that two parties have it, and one of them is not Alice. The session ends:")
	err = p.discharge(ctx)
	if refused = refusal(err); refused.Reason != wire.ReasonTokenReused || !refused.Ended || !refused.SoftLogout {
		return unexpected("service should have refused the stolen session", err)
	}
	p.printf("   service to Alice:     %s, %q", refused.Reason, refused.Message)
	p.printf("   The end is soft: she logs in again and keeps her encryption keys.")
	return nil
}

// refusal returns the service's refusal; zero: the error is another one.
func refusal(err error) (r client.RefusedError) {
	var refused *client.RefusedError
	if errors.As(err, &refused) {
		r = *refused
	}
	return r
}

func (p *play) loginAgain(ctx context.Context) error {
	p.begin("Alice logs in again: a new session, unknown to the thief.")
	if err := p.mint(ctx); err != nil {
		return err
	}
	if err := p.discharge(ctx); err != nil {
		return err
	}
	return p.whoami(ctx)
}

func (p *play) logout(ctx context.Context) error {
	p.begin("Alice logs out. The service stores the end before it answers, and refuses from then on.")
	alice, err := p.client("Alice's phone")
	if err != nil {
		return err
	}
	if err := alice.Logout(ctx, client.Request{Access: p.access, Token: p.grant.Token}, wire.ScopeSession); err != nil {
		return err
	}
	p.printf("   service: logged out")
	last := p.grant
	err = p.discharge(ctx)
	refused := refusal(err)
	if refused.Reason != wire.ReasonSessionEnded {
		return unexpected("service should have refused after the logout", err)
	}
	p.printf("   service, to a request for a discharge: %s, %q", refused.Reason, refused.Message)
	p.grant = last
	return nil
}

func (p *play) runOut(ctx context.Context) error {
	p.begin(fmt.Sprintf("The homeserver verifies offline, so the last bundle is accepted until it expires, %v at most.", p.ttl))
	if err := p.whoami(ctx); err != nil {
		return err
	}
	p.clock.forward(p.ttl)
	bundle, err := p.grant.Bundle()
	if err != nil {
		return err
	}
	if _, err = send(ctx, http.MethodGet, p.homeserver+"/whoami", bundle, nil); !refusedAs(err, "expired") {
		return unexpected("homeserver should have refused the old bundle", err)
	}
	p.printf("   %v later, homeserver: %v", p.ttl, err)
	return nil
}
