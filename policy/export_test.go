package policy

import "time"

// Patient gives webhooks a minute to answer, whatever the files say: a machine
// may stand still for longer than any of them would wait.
func (cfg LoadConfig) Patient() LoadConfig {
	cfg.hookPatience = time.Minute
	return cfg
}
