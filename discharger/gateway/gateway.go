package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/discharger/discharger/discharger/caveat"
	"github.com/discharger/discharger/discharger/client"
	"github.com/discharger/discharger/discharger/gateway/matrix"
	"github.com/discharger/discharger/discharger/gateway/token"
	"github.com/discharger/discharger/discharger/homeserver"
	"github.com/discharger/discharger/discharger/secret"
)

// Config is what a [Gateway] is made from. Upstream, Service, APIKey, Keys,
// KeyPair, Discharger and Vault are required.
type Config struct {
	// Upstream is where the homeserver is: http or https, and a host; or unix:
	// and the path of a socket.
	Upstream string
	// UpstreamTLS is for a homeserver by https: whom to trust, and with which
	// certificate the gateway shows who it is. Nil: the system's authorities,
	// and none.
	UpstreamTLS *tls.Config
	// PublicURL is where clients reach the gateway. Answers that tell clients
	// where the homeserver is are changed to it, and its scheme is reported to the
	// homeserver. Empty: answers stay as they are, and the scheme is that of the
	// connection or of a trusted proxy.
	PublicURL string
	// Service is the URL of the service.
	Service string
	// APIKey is the one under which the service knows the gateway.
	APIKey secret.Bytes
	// Keys are master keys: access macaroons are minted with the first, and
	// what clients carry for the gateway is sealed with keys derived from it.
	Keys homeserver.Keys
	// Retired are the ids of master keys that were taken out of Keys. Sessions that
	// depend on one are over, softly; about those that depend on a key in neither,
	// nothing is decided.
	Retired [][4]byte
	// KeyPair seals caveats. The service knows the gateway by its public key.
	KeyPair caveat.KeyPair
	// Discharger is the service's public key.
	Discharger caveat.PublicKey

	// Reconcile is how often the service is asked which sessions there still
	// are. 0: never.
	Reconcile time.Duration
	// ForgetAfter is how long after a soft end a session's device stays at the
	// homeserver, by the service's clock. It is compared when reconciling. 0:
	// for ever.
	ForgetAfter time.Duration
	// Vault is the file in which the gateway keeps what it owes to the service
	// and to the homeserver; see the package comment.
	Vault string

	// Legacy says what becomes of tokens that are not the gateway's. The zero
	// value: they are the homeserver's business.
	Legacy Legacy
	// ForeignTokens holds the SHA-256 of tokens that are not the gateway's and
	// are passed on in any case: those of application services.
	ForeignTokens [][sha256.Size]byte

	// TrustedProxies are those whose X-Forwarded-For, -Proto and -Host are
	// believed. Nil: nobody's.
	TrustedProxies []netip.Prefix
	// Leeway is for how long a discharge is accepted after its time, for
	// clocks that differ. 0: not at all.
	Leeway time.Duration
	// CacheBytes is how much memory is used for what is kept of sessions in use:
	// their discharges, verified tokens, ends. A session takes 5 to 10 KB. A
	// session without room costs the service and the gateway more. 0: 256 MiB.
	CacheBytes int
	// Limits bound the requests that are answered at a time.
	Limits Limits

	Registerer prometheus.Registerer // of the metrics; nil: they are not shown
	Log        *slog.Logger          // nil: nothing is logged
	Access     *slog.Logger          // for the line of each request; nil: Log
	Clock      func() time.Time      // nil: time.Now
	Rand       io.Reader             // nil: crypto/rand
	Jitter     func() float64        // from 0 up to 1, spreads refreshes over time; nil: math/rand/v2

	patience patience // for others; zero: usualPatience
	// dial connects to the service and the homeserver; nil: by the network.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// patience is how long the gateway waits for an answer to what it asks by
// itself.
type patience struct {
	attempt  time.Duration // to one request to the service
	order    time.Duration // to an end of sessions that the service is told of, before it is kept for later
	upstream time.Duration // of the homeserver's
	health   time.Duration // before something is taken for broken
	race     time.Duration // for a login through another gateway to come to the service
	leased   time.Duration // with a request that others wait for
	wait     time.Duration // of a request, while the service decides nothing; 0: none
}

func usualPatience() patience {
	return patience{
		attempt: 5 * time.Second, order: 4 * time.Second, upstream: 10 * time.Second, health: 2 * time.Second, race: time.Second,
		leased: 2 * time.Minute, wait: 10 * time.Second,
	}
}

const defaultCacheBytes = 256 << 20

// forEver is longer than any token lives.
const forEver = 100 * 365 * 24 * time.Hour

// Gateway is an HTTP handler in front of a homeserver. It may be used
// concurrently.
type Gateway struct {
	cfg      Config                 // without what a reload replaces
	current  atomic.Pointer[Config] // as loaded last; see live
	upstream *url.URL
	socket   string // of the homeserver; empty: it is where upstream says
	hs       *homeserver.Homeserver
	lenient  *homeserver.Homeserver // looks at no times
	client   *client.Client
	once     *client.Client // makes one attempt only: what fails is made up for later
	sealer   *token.Sealer
	proxy    *httputil.ReverseProxy
	metrics  *metrics
	link     *link
	room     *waitingRoom
	limiter  *limiter
	bodies   *bodyRoom
	able     ability
	renewals renewals
	held     *heldSessions
	opened   *recent[caveat.SessionID, openedToken]
	owners   *recent[[sha256.Size]byte, owner]
	dead     *endings                            // sessions that are over
	vouched  *recent[caveat.SessionID, vouch]    // sessions that live, whatever the feed says
	events   atomic.Uint64                       // received revocations of more than one session
	gone     *recent[caveat.SessionID, struct{}] // sessions whose devices were logged out at the homeserver
	logins   *recent[leaseKey, time.Time]        // when the last login on a device came through
	leases   leases
	// Parameters of user-interactive authentication.
	uiaUsers, uiaRegistrations *uiaSessions
	polls                      polls
	loopName                   string // of this process, by which a request that comes back is recognized
	// canonical remembers bundles that were found to be in the one form that
	// is accepted.
	canonical *recent[string, struct{}]
	nonce     [32]byte  // of this process, for request-ids
	forWarned sync.Once // that X-Forwarded-For is not understood

	shortLogin sync.Once // a lifetime of the homeserver's was logged

	homeserverProbe probe // whether it answers
	vaultProbe      probe // whether it can be written

	vault      *vault
	feed       *homeserver.Feed
	gap        chan struct{} // revocations may have been missed
	feedLost   chan struct{} // the connection of the feed has ended
	seen       *seenReports
	cancel     context.CancelFunc // of what goes on in the background
	background sync.WaitGroup
	caches     []func() int                          // bytes of each
	idle       []interface{ CloseIdleConnections() } // whose connections end with the gateway
	toUpstream swappedTransport
	woken      chan struct{} // there is something to settle
	settling   sync.Mutex    // held during settleOnce
	ordering   chan struct{} // holds a value while a kept order is sent
	passing    sync.Mutex    // guards lastPass
	lastPass   passTimes     // of reconciling

	reloading    sync.Mutex    // held by Reload
	reconfigured chan struct{} // the time between two passes may be another
}

// openedToken is a homeserver's token that was unsealed.
type openedToken struct {
	payload string // what it was sealed in
	token   string
}

// New checks a configuration and makes a gateway. It connects to nobody. The
// caller has to Close it.
func New(cfg Config) (*Gateway, error) {
	g, err := newGateway(cfg)
	if err != nil {
		return nil, fmt.Errorf("new gateway: %w", err)
	}
	return g, nil
}

func newGateway(cfg Config) (*Gateway, error) {
	cfg.Upstream = strings.TrimSuffix(cfg.Upstream, "/")
	upstream, socket, err := parseUpstream(cfg.Upstream)
	if err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}
	if cfg.UpstreamTLS != nil && upstream.Scheme != "https" {
		return nil, errTLSWithoutHTTPS
	}
	if err := cfg.checkReloadable(); err != nil {
		return nil, err
	}
	if cfg.Vault == "" {
		return nil, errors.New("no file for the vault")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Access == nil {
		cfg.Access = cfg.Log
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	cfg.Log = limitLog(cfg.Log, cfg.Clock)
	if cfg.Jitter == nil {
		cfg.Jitter = rand.Float64
	}
	if cfg.patience == (patience{}) {
		cfg.patience = usualPatience()
	}
	if cfg.CacheBytes <= 0 {
		cfg.CacheBytes = defaultCacheBytes
	}
	g := &Gateway{cfg: cfg.withoutReloadable(), upstream: upstream, socket: socket, reconfigured: make(chan struct{}, 1)}
	g.current.Store(&cfg)
	if g.sealer, err = token.NewSealer(cfg.Keys, cfg.Retired); err != nil {
		return nil, err
	}
	if err := g.newVerifiers(); err != nil {
		return nil, err
	}
	if err := g.connect(); err != nil {
		return nil, err
	}
	if g.metrics, err = newMetrics(cfg.Registerer, g); err != nil {
		return nil, err
	}
	if g.vault, err = openVault(cfg.Vault); err != nil {
		return nil, err
	}
	if err := g.recall(); err != nil {
		return nil, errors.Join(err, g.vault.close())
	}
	g.start()
	return g, nil
}

// newVerifiers makes the verifiers of tokens.
func (g *Gateway) newVerifiers() (err error) {
	keys := g.live()
	hc := homeserver.Config{
		Keys: keys.Keys, Retired: keys.Retired, KeyPair: keys.KeyPair, Discharger: keys.Discharger, Location: token.Location,
		Check: checkCondition, MaxConditions: token.MaxConditions, MaxCondition: token.MaxCondition, Leeway: g.cfg.Leeway,
		CacheBytes: max(1, g.cfg.CacheBytes/wholeCache*verifiedParts),
	}.WithClock(g.cfg.Clock)
	if g.hs, err = homeserver.New(hc); err != nil {
		return err
	}
	hc.Check, hc.Leeway, hc.CacheBytes = checkLogout, forEver, -1
	g.lenient, err = homeserver.New(hc)
	return err
}

// connect makes what asks the service and what passes on to the homeserver.
func (g *Gateway) connect() (err error) {
	cfg := &g.cfg
	toService := g.newTransport()
	g.toUpstream.replace(g.newUpstreamTransport(g.live().UpstreamTLS))
	g.idle = []interface{ CloseIdleConnections() }{toService, &g.toUpstream}
	ac := client.Config{
		URL: cfg.Service, Location: token.Location, APIKey: g.live().APIKey, UserAgent: ownUserAgent,
		Timeout: cfg.patience.attempt, Patience: 3 * time.Second,
		HTTPClient: &http.Client{Transport: toService},
	}
	if g.client, err = client.New(ac); err != nil {
		return err
	}
	ac.Patience = -1
	if g.once, err = client.New(ac); err != nil {
		return err
	}
	if err := fillRandom(cfg.Rand, g.nonce[:]); err != nil {
		return err
	}
	if g.loopName, err = newLoopName(cfg.Rand); err != nil {
		return err
	}
	g.bodies = newBodyRoom(bodiesMax)
	g.link, g.room, g.limiter = newLink(cfg.Jitter, cfg.Clock), newWaitingRoom(), newLimiter(cfg.Limits, cfg.Clock)
	if err := g.newCaches(); err != nil {
		return err
	}
	g.uiaUsers, g.uiaRegistrations = newUIASessions(uiaMemory), newUIASessions(uiaMemory)
	g.proxy = g.newProxy(&g.toUpstream)
	if g.seen, err = newSeenReports(g); err != nil {
		return err
	}
	g.newProbes()
	g.woken, g.gap, g.ordering = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)
	g.feedLost = make(chan struct{}, 1)
	if g.feed, err = g.newFeed(); err != nil {
		return err
	}
	return nil
}

// dialPatience is how long it may take to connect.
const dialPatience = 10 * time.Second

// newTransport keeps many connections, unpacks nothing, and waits for an answer
// as long as the client does: it may be a long poll.
func (g *Gateway) newTransport() *http.Transport {
	dial := g.cfg.dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialPatience, KeepAlive: 30 * time.Second}).DialContext
	}
	return &http.Transport{
		DialContext:           dial,
		TLSHandshakeTimeout:   dialPatience,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   1024,
		DisableCompression:    true,
	}
}

// Format writes where the gateway leads and no secret, whatever the verb.
func (g *Gateway) Format(s fmt.State, _ rune) {
	_, _ = io.WriteString(s, "gateway to "+g.cfg.Upstream)
}

// exchange is one request and its answer.
type exchange struct {
	route   route
	method  string
	path    string // as it was sent
	match   matrix.Match
	room    string // that the events of the answer have to be of; empty: any
	client  netip.Addr
	trusted bool // the peer's word is taken for where the client is

	kind     token.Kind          // of the token
	token    bool                // whether there is one
	identity homeserver.Identity // whose session it is, if the token is ours
	upstream string              // the homeserver's own token of that session
	narrowed bool                // its holder added conditions
	expired  bool                // its discharge has run out, on routes that accept that
	settled  bool                // a logout that was passed on left nothing at the homeserver
	leased   leased
	poll     *poll // nil: it is no long poll

	place     place     // among the requests in flight
	body      heldBody  // memory of its body and answer, as far as they were read
	waitUntil time.Time // the service is waited for until then; zero: it was not waited for

	login   login // of routes that hand out tokens
	uia     uia   // of routes with user-interactive authentication
	outcome outcome
}

// ours tells whether the request came with a token of the gateway's.
func (x *exchange) ours() bool { return x.upstream != "" }

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}
