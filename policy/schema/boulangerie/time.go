package boulangerie

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

var iso8601 = regexp.MustCompile(`^(-?[0-9]+)-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?$`)

// parseDateTime accepts the texts of Ruby's Time.iso8601, to the nanosecond. As in
// Ruby, 24:00:00, the 60th second and the 30th of February roll over. A time
// without an offset is UTC, where Ruby takes the zone of the machine. Years have at
// most nine digits, and the text 256 characters.
func parseDateTime(s string) (any, error) {
	s = strings.TrimFunc(s, isSpace)
	if len(s) > 256 {
		return nil, errDateTime
	}
	m := iso8601.FindStringSubmatch(s)
	if m == nil || len(strings.TrimLeft(m[1], "-0")) > 9 {
		return nil, errDateTime
	}
	d := clock{
		year: digits(m[1]), month: digits(m[2]), day: digits(m[3]),
		hour: digits(m[4]), minute: digits(m[5]), second: digits(m[6]),
	}
	if zone := strings.ReplaceAll(m[8], ":", ""); len(zone) >= 3 {
		sign := 1
		if zone[0] == '-' {
			sign = -1
		}
		d.toUTC(sign, digits(zone[1:3]), digits(zone[3:]))
	}
	if !d.valid() {
		return nil, errDateTime
	}
	fraction := (m[7] + "000000000")[:9]
	return time.Date(d.year, time.Month(d.month), d.day, d.hour, d.minute, d.second, digits(fraction), time.UTC), nil
}

// digits returns a number of at most nine digits; "" is 0.
func digits(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0
	}
	return n
}

// clock is a date and time as written, which may not exist.
type clock struct{ year, month, day, hour, minute, second int }

// valid reports whether Ruby accepts the date and time.
func (c clock) valid() bool {
	return c.month >= 1 && c.month <= 12 && c.day >= 1 && c.day <= 31 &&
		c.minute <= 59 && c.second <= 60 &&
		(c.hour <= 23 || c.hour == 24 && c.minute == 0 && c.second == 0)
}

// toUTC subtracts an offset of hours and minutes. It carries as Ruby does: only
// from a part that the offset changes, and past the end of a month to the nearest
// day of the next, however far the offset reaches.
func (c *clock) toUTC(sign, hours, minutes int) {
	offset := hours*60 + minutes
	if part := offset % 60; part != 0 {
		c.minute -= sign * part
		offset = offset/60 - sign*carry(&c.minute, 60)
	} else {
		offset /= 60
	}
	days := offset / 24
	if part := offset % 24; part != 0 {
		c.hour -= sign * part
		days -= sign * carry(&c.hour, 24)
	}
	if days == 0 {
		return
	}
	c.day -= sign * days
	switch {
	case c.day < 1:
		c.month--
		if c.month < 1 {
			c.month, c.year = 12, c.year-1
		}
		c.day = monthDays(c.year, c.month)
	case sign < 0 && c.month <= 12 && c.day > monthDays(c.year, c.month):
		c.month, c.day = c.month+1, 1
		if c.month > 12 {
			c.month, c.year = 1, c.year+1
		}
	}
}

// carry reduces *v to 0 … base-1 and returns how many times it subtracted base.
func carry(v *int, base int) int {
	times := *v / base
	if *v%base < 0 {
		times--
	}
	*v -= times * base
	return times
}

// monthDays returns the length of a month.
func monthDays(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}
