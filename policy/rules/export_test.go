package rules

import "time"

// Patient gives webhooks a minute to answer, whatever the files say: a machine
// may stand still for longer than any of them would wait.
func (cfg Config) Patient() Config {
	cfg.hookTimeout = time.Minute
	return cfg
}
