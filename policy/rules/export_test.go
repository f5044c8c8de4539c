package rules

import "time"

// Patient replaces the timeout of every webhook by a minute.
func (cfg Config) Patient() Config {
	cfg.hookTimeout = time.Minute
	return cfg
}
