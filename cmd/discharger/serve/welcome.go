package serve

import (
	"fmt"
	"log/slog"

	"github.com/discharger/discharger/discharger/keyfile"
)

// announce logs that the service is up. Without a configuration file it also prints the
// paths, the files and the next steps.
func (d *Daemon) announce(madeKeys bool) {
	url := d.listeners.url(d.cfg)
	d.log.Info("listening",
		slog.String("clients", "http://"+d.listeners.client.Addr().String()),
		slog.String("operators", "http://"+d.listeners.operators.Addr().String()),
		slog.String("public_url", url), slog.Int("homeservers", len(d.registered().Homeservers)))
	if d.options.File != "" {
		return
	}
	keysAre := "read from"
	if madeKeys {
		keysAre = "new:"
	}
	store := d.cfg.BoltFile()
	if d.cfg.Store.Redis != nil {
		store = fmt.Sprint("Redis at ", d.cfg.Store.Redis.Addresses)
	}
	fmt.Fprintf(d.t.Err, welcome, url, d.listeners.operators.Addr(), keysAre, d.cfg.KeyFile(), store,
		d.keys.Of(keyfile.Discharger)[0].Public)
}

const welcome = `
discharger runs at %[1]s, without a configuration file.

  operators     http://%[2]s/metrics, /healthz, /readyz
  keys          %[3]s %[4]s
  sessions      %[5]s
  public key    %[6]s

No homeserver is registered, so nothing is discharged yet.

To watch a session from login to logout, without this service:

    discharger demo

To register a homeserver and be its client, in another terminal:

    discharger keys new --kind homeserver --name example.org --service %[1]s homeserver.json > discharger.yaml
    # stop this one with ^C, and start it again with: discharger serve --config discharger.yaml
    discharger mint --key homeserver.json --user @alice:example.org > access
    discharger discharge --service %[1]s -o alice.json access
    discharger verify --key homeserver.json alice.json
    discharger refresh alice.json
    discharger logout alice.json

Programs in other languages use HTTP:

    curl %[1]s/discharge/info

`
