package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ParseDuration parses a duration of Go's form, in which a leading number of
// days, of 24 hours each, may stand: 90s, 1h30m, 90d, 1d12h.
func ParseDuration(s string) (time.Duration, error) {
	var total time.Duration
	rest, sign := s, time.Duration(1)
	if after, ok := strings.CutPrefix(rest, "-"); ok {
		rest, sign = after, -1
	}
	if number, after, ok := strings.Cut(rest, "d"); ok {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil {
			return 0, notDuration(s)
		}
		total, rest = time.Duration(n)*24*time.Hour, after
		if rest == "" {
			return sign * total, nil
		}
	}
	if rest == "" || rest[0] == '-' || rest[0] == '+' {
		return 0, notDuration(s)
	}
	d, err := time.ParseDuration(rest)
	if err != nil || total+d < total {
		return 0, notDuration(s)
	}
	return sign * (total + d), nil
}

func notDuration(s string) error {
	if _, err := strconv.Atoi(s); err == nil {
		return fmt.Errorf("%s has no unit; write %ss if seconds are meant", s, s)
	}
	return fmt.Errorf("%.60q is no duration such as 90s, 5m, 12h or 30d", s)
}
