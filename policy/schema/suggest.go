package schema

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// short cuts text from a file or a macaroon to what fits in a message.
func short(s string) string {
	if len(s) <= MaxName {
		return s
	}
	cut := MaxName
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// printable puts a message of another package on one line that a terminal
// can be shown, at most 300 characters long.
func printable(s string) string {
	const limit = 300
	runes := []rune(strings.Join(strings.Fields(s), " "))
	if len(runes) > limit {
		runes = append(runes[:limit], '…')
	}
	for i, r := range runes {
		if !unicode.IsPrint(r) {
			runes[i] = '?'
		}
	}
	return string(runes)
}

// oneLine puts text on one line, cut to what fits in a message.
func oneLine(s string) string { return short(strings.Join(strings.Fields(s), " ")) }

// didYouMean returns a hint at the known name that word is nearest to, in
// brackets and with a leading space, or "" when none is near.
func didYouMean(word string, known []string) string {
	if len(word) > MaxName {
		return ""
	}
	best, least := "", len(word)/3+2
	for _, k := range known {
		if d := distance(word, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// distance counts the bytes to insert, remove or replace to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
