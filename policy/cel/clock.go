package cel

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // time zones for containers without a zone database

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// A clock holds the time zones and the times of the week in the literals of a file's
// expressions. It is complete when the file is loaded, so that evaluations need no lock.
type clock struct {
	zones   map[string]*time.Location
	windows map[string]window
}

var offsetForm = regexp.MustCompile(`^[+-]([01]\d|2[0-3]):[0-5]\d$`)

// addZone adds a zone: a name of the IANA database, or an offset such as +05:30.
func (c *clock) addZone(name string) error {
	if offsetForm.MatchString(name) {
		minutes := minuteOf(name[1:])
		if name[0] == '-' {
			minutes = -minutes
		}
		c.zones[name] = time.FixedZone(name, minutes*60)
		return nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil || name == "" || name == "Local" {
		return fmt.Errorf("time zone: want a name such as Europe/Berlin or UTC, got %.60q", name)
	}
	c.zones[name] = zone
	return nil
}

// addWindow adds a time of the week; see parseWindow.
func (c *clock) addWindow(text string) error {
	w, err := parseWindow(text)
	if err != nil {
		return err
	}
	c.windows[text] = w
	return nil
}

// A window is a time of the week: days, and on each the minutes from start until before
// end. If end is not after start, it is on the next day.
type window struct {
	days       [7]bool // by time.Weekday
	start, end int     // minutes of the day; end up to 24:00
}

var hoursForm = regexp.MustCompile(`^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-4]):[0-5]\d$`)

// parseWindow reads "Mon-Fri 08:00-18:00", "Sat,Sun" or "22:00-06:00".
func parseWindow(text string) (window, error) {
	w := window{end: 24 * 60}
	words := strings.Fields(text)
	if len(words) == 0 || len(words) > 2 {
		return w, fmt.Errorf("time of the week: want a form such as Mon-Fri 08:00-18:00, got %.60q", text)
	}
	days := words[0]
	if last := words[len(words)-1]; len(words) == 2 || strings.Contains(last, ":") {
		from, to, ok := parseHours(last)
		if !ok {
			return w, fmt.Errorf("hours: want a form such as 08:00-18:00, got %.60q", last)
		}
		w.start, w.end = from, to
		if len(words) == 1 {
			days = "Sun-Sat"
		}
	}
	for part := range strings.SplitSeq(days, ",") {
		if err := w.addDays(part); err != nil {
			return w, err
		}
	}
	return w, nil
}

// addDays adds a day or a span of days, which may include the end of the week.
func (w *window) addDays(part string) error {
	from, to, isSpan := strings.Cut(part, "-")
	if !isSpan {
		to = from
	}
	first, err := parseDay(from)
	if err != nil {
		return err
	}
	last, err := parseDay(to)
	if err != nil {
		return err
	}
	for day := first; ; day = (day + 1) % 7 {
		w.days[day] = true
		if day == last {
			return nil
		}
	}
}

func parseDay(s string) (int, error) {
	days := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}
	day := slices.Index(days, strings.ToLower(s))
	if day < 0 {
		return 0, fmt.Errorf("day: want Mon, Tue, Wed, Thu, Fri, Sat or Sun, got %.60q", s)
	}
	return day, nil
}

// parseHours reads "08:00-18:00" as minutes of the day.
func parseHours(s string) (start, end int, ok bool) {
	if !hoursForm.MatchString(s) {
		return 0, 0, false
	}
	start, end = minuteOf(s), minuteOf(s[len("08:00-"):])
	return start, end, start != end && end <= 24*60
}

// minuteOf returns the minute of the day at the beginning of a text such as 08:00-18:00.
func minuteOf(text string) int {
	hours, _ := strconv.Atoi(text[:2]) // two digits each
	minutes, _ := strconv.Atoi(text[3:5])
	return hours*60 + minutes
}

// includes reports whether a local time is in the window.
func (w window) includes(t time.Time) bool {
	minute, day := t.Hour()*60+t.Minute(), int(t.Weekday())
	if w.start < w.end {
		return w.days[day] && w.start <= minute && minute < w.end
	}
	return w.days[day] && minute >= w.start || w.days[(day+6)%7] && minute < w.end
}

// local returns a timestamp in a zone of the file.
func (c *clock) local(at, zone ref.Val) (time.Time, error) {
	t, ok := at.(types.Timestamp)
	name, isText := zone.(types.String)
	location := c.zones[string(name)]
	if !ok || !isText || location == nil {
		return time.Time{}, fmt.Errorf("time zone %v is unknown", zone.Value())
	}
	return t.In(location), nil
}

// during implements the function at.during(window, zone).
func (c *clock) during(args ...ref.Val) ref.Val {
	t, err := c.local(args[0], args[2])
	if err != nil {
		return types.WrapErr(err)
	}
	text, _ := args[1].(types.String)
	w, ok := c.windows[string(text)]
	if !ok {
		return types.NewErr("time of the week %v is unknown", args[1].Value())
	}
	return types.Bool(w.includes(t))
}

// A zoned function replaces one of CEL that returns a part of a timestamp in a zone.
// CEL reads the zone from the disk at each call; these use the clock.
type zoned struct {
	function, overload string
	part               func(time.Time) int
}

func zonedFunctions() []zoned {
	return []zoned{
		{overloads.TimeGetFullYear, overloads.TimestampToYearWithTz, time.Time.Year},
		{overloads.TimeGetMonth, overloads.TimestampToMonthWithTz, func(t time.Time) int { return int(t.Month()) - 1 }},
		{overloads.TimeGetDayOfYear, overloads.TimestampToDayOfYearWithTz, func(t time.Time) int { return t.YearDay() - 1 }},
		{overloads.TimeGetDayOfMonth, overloads.TimestampToDayOfMonthZeroBasedWithTz, func(t time.Time) int { return t.Day() - 1 }},
		{overloads.TimeGetDate, overloads.TimestampToDayOfMonthOneBasedWithTz, time.Time.Day},
		{overloads.TimeGetDayOfWeek, overloads.TimestampToDayOfWeekWithTz, func(t time.Time) int { return int(t.Weekday()) }},
		{overloads.TimeGetHours, overloads.TimestampToHoursWithTz, time.Time.Hour},
		{overloads.TimeGetMinutes, overloads.TimestampToMinutesWithTz, time.Time.Minute},
		{overloads.TimeGetSeconds, overloads.TimestampToSecondsWithTz, time.Time.Second},
		{overloads.TimeGetMilliseconds, overloads.TimestampToMillisecondsWithTz, func(t time.Time) int { return t.Nanosecond() / 1e6 }},
	}
}

// functions returns the declarations of the functions on times.
func (c *clock) functions() []cel.EnvOption {
	opts := []cel.EnvOption{
		cel.Function("during",
			cel.MemberOverload("timestamp_during", []*cel.Type{cel.TimestampType, cel.StringType, cel.StringType}, cel.BoolType,
				cel.FunctionBinding(c.during))),
		cel.Function("days",
			cel.Overload("int_to_days", []*cel.Type{cel.IntType}, cel.DurationType, cel.UnaryBinding(days))),
	}
	for _, f := range zonedFunctions() {
		opts = append(opts, cel.Function(f.function,
			cel.MemberOverload(f.overload, []*cel.Type{cel.TimestampType, cel.StringType}, cel.IntType,
				cel.BinaryBinding(func(at, zone ref.Val) ref.Val {
					t, err := c.local(at, zone)
					if err != nil {
						return types.WrapErr(err)
					}
					return types.Int(f.part(t))
				}))))
	}
	return opts
}

// days implements the function days: a duration in days of 24 hours.
func days(v ref.Val) ref.Val {
	n, ok := v.(types.Int)
	const most = 100 * 366
	if !ok || n < -most || n > most {
		return types.NewErr("days(%v) is out of range", v.Value())
	}
	return types.Duration{Duration: time.Duration(n) * 24 * time.Hour}
}
