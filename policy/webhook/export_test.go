package webhook

import "time"

// SetClock replaces the clock of a webhook.
func (w *Webhook) SetClock(now func() time.Time) { w.now = now }
