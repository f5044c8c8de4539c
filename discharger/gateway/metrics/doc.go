// Package metrics defines the metrics of the gateway. Labels come from fixed sets.
package metrics
