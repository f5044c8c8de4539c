package policy

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Parts returns the parts of a decision as text by JSON name, for
// tests and comparisons, without rule and hash.
func (d Decision) Parts() map[string]string {
	return map[string]string{
		"effect":        string(d.Effect),
		"ttl":           d.TTL.String(),
		"caveats":       ListText(d.Caveats),
		"code":          d.Code,
		"message":       d.Message,
		"soft_logout":   strconv.FormatBool(d.SoftLogout),
		"labels":        MapText(d.Labels),
		"keep_sessions": strconv.Itoa(d.KeepSessions),
		"retry_after":   d.RetryAfter.String(),
	}
}

// ListText formats caveats as [Decision.Parts] does.
func ListText(items []string) string {
	quoted := make([]string, len(items))
	for i, s := range items {
		quoted[i] = strconv.Quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// MapText formats labels as [Decision.Parts] does.
func MapText(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+": "+strconv.Quote(labels[k]))
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// Clone returns a copy that shares no slice or map with d.
func (d Decision) Clone() Decision {
	d.Caveats, d.Labels = slices.Clone(d.Caveats), maps.Clone(d.Labels)
	return d
}
